package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"postern/agent/lifecycle"
)

// The numbers and names stand in stored JSON, metrics and the journal.
func TestStateNamesAndNumbersAreFixed(t *testing.T) {
	for number, name := range map[uint8]string{
		1: "Damaged", 2: "Unenrolled", 3: "Moved", 4: "Rejected",
		5: "ClockUntrusted", 6: "Expired", 7: "Offline", 8: "Connected",
	} {
		s := lifecycle.State(number)
		if s.String() != name {
			t.Errorf("state %d is %s, want %s", number, s, name)
		}
		text, err := json.Marshal(s)
		if err != nil || string(text) != `"`+name+`"` {
			t.Errorf("state %d is %s in JSON, %v", number, text, err)
		}
		var back lifecycle.State
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			t.Errorf("%s reads back as %s, %v", text, back, err)
		}
	}
}

func TestAStateThatIsNoneIsRefused(t *testing.T) {
	for _, s := range []lifecycle.State{0, 9, 255} {
		if _, err := s.MarshalText(); err == nil {
			t.Errorf("%s was written", s)
		}
		if want := fmt.Sprintf("State(%d)", uint8(s)); s.String() != want {
			t.Errorf("got %s, want %s", s, want)
		}
	}
	for _, text := range []string{"", "connected", "Disconnected", "State(3)"} {
		var s lifecycle.State
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %s", text, s)
		}
	}
}

func TestClassNamesAreFixed(t *testing.T) {
	for number, name := range map[uint8]string{
		0: "unclassified", 1: "transient", 2: "clock", 3: "rejected", 4: "bad-resource", 5: "denied", 6: "unclassified",
	} {
		if got := lifecycle.Class(number).String(); got != name {
			t.Errorf("class %d is %s, want %s", number, got, name)
		}
	}
}

func TestAnErrorWithoutAClassIsTransient(t *testing.T) {
	rejected := &lifecycle.Error{Class: lifecycle.ClassRejected, Op: "stepca: rekey"}
	for _, row := range []struct {
		err  error
		want lifecycle.Class
	}{
		{nil, 0},
		{context.DeadlineExceeded, lifecycle.ClassTransient},
		{rejected, lifecycle.ClassRejected},
		{fmt.Errorf("renew: %w", rejected), lifecycle.ClassRejected},
		{errors.Join(errors.New("other"), rejected), lifecycle.ClassRejected},
	} {
		if got := lifecycle.ClassOf(row.err); got != row.want {
			t.Errorf("%v: got %s, want %s", row.err, got, row.want)
		}
	}
}

func TestErrorNamesOperationCodeReasonAndCause(t *testing.T) {
	cause := errors.New("connection reset")
	for _, row := range []struct {
		err  lifecycle.Error
		want string
	}{
		{lifecycle.Error{Op: "oauth: token"}, "oauth: token"},
		{lifecycle.Error{Op: "oauth: token", Code: "invalid_client"}, "oauth: token: invalid_client"},
		{lifecycle.Error{Op: "oauth: token", Reason: "no such client", Err: cause}, "oauth: token: no such client: connection reset"},
	} {
		if got := row.err.Error(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
	if !errors.Is(&lifecycle.Error{Op: "x", Err: cause}, cause) {
		t.Error("the cause is not reachable")
	}
}
