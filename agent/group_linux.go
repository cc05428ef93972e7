package main

// hasGroup looks a group up where the platform does.
func hasGroup(name string) bool { return groupExists(name) }
