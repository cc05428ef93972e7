package lifecycle

import "fmt"

// State is what one identity can do at an instant. It is derived from Facts by
// Derive and never stored. The numbers and strings are fixed: they appear in
// JSON, metrics and the journal.
type State uint8

// The states, in the order in which Derive tries them.
const (
	Damaged        State = 1 // the marker says there is an identity, its key cannot be read
	Unenrolled     State = 2 // no identity
	Moved          State = 3 // the enrolled hardware is not this hardware (copied card)
	Rejected       State = 4 // the authority said, twice, that the identity is gone
	ClockUntrusted State = 5 // the clock cannot be believed
	Expired        State = 6 // trusted clock, certificate over; only reconnect leaves it
	Offline        State = 7 // valid certificate, no recent contact
	Connected      State = 8
)

var stateNames = [...]string{
	Damaged: "Damaged", Unenrolled: "Unenrolled", Moved: "Moved", Rejected: "Rejected",
	ClockUntrusted: "ClockUntrusted", Expired: "Expired", Offline: "Offline", Connected: "Connected",
}

// String returns the state's fixed name, "State(n)" for a number that is none.
func (s State) String() string {
	if s >= Damaged && s <= Connected {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText writes the fixed name.
func (s State) MarshalText() ([]byte, error) {
	if s < Damaged || s > Connected {
		return nil, fmt.Errorf("lifecycle: no state has the number %d", uint8(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads a fixed name; an unknown one is an error.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name != "" && name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("lifecycle: no state is called %q", text)
}
