package store

func writerRole([]string) error { return nil }
func tmpfsRole([]string) error  { return nil }
func holderRole([]string) error { return nil }
