package main

// Connections of the endpoint, and what is kept for everything else: databases
// and watcher, listeners, the control socket's 16 connections, calls upstream,
// look-ups of peers (firmware-notes/limits.md).
const (
	allConnections  = 128
	fewConnections  = 8
	ownDescriptors  = 64
	unlimitedNumber = ^uint64(0)
)

// connectionsFor says how many connections the endpoint serves at once where
// a process may have so many files open: descriptors that run out would take
// store and upstream with them.
func connectionsFor(files uint64) int {
	if files >= ownDescriptors+allConnections {
		return allConnections
	}
	if files < ownDescriptors+fewConnections {
		return fewConnections
	}
	return int(files - ownDescriptors)
}
