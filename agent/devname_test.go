package main

import (
	"strings"
	"testing"
)

// TestTrialFindsANameOnEveryHost: a board that was given no name is "(none)",
// which the authority does not take.
func TestTrialFindsANameOnEveryHost(t *testing.T) {
	for host, want := range map[string]string{
		"gw-0042": "gw-0042", "board.example": "board.example", "x": "x",
		"(none)": "device", "": "device", "my_board-": "device", "größer": "device", strings.Repeat("a", 65): "device",
	} {
		if got := nameFrom(host); got != want {
			t.Errorf("host %q is called %q, want %q", host, got, want)
		}
	}
}
