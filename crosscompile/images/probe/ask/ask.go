// Package ask is what the host and the probe in a test image say to each other:
// one JSON document a line, a question from the host, an answer from the guest.
package ask

// Port is the name of the virtio port.
const Port = "postern.probe.0"

// Question is a command to run, as root or as another user.
type Question struct {
	ID     int
	Args   []string
	Stdin  string
	UID    uint32 // 0: root
	Groups []uint32
}

// Answer is what came of it; the first one after a boot has ID 0.
type Answer struct {
	ID       int
	Code     int // exit code; -1: it could not be run
	Out, Err string
}
