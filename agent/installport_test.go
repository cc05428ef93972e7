//go:build linux

package main

import "testing"

// TestPortOfAStrangerIsNotOurs: a process may call itself what it likes, an
// account may not.
func TestPortOfAStrangerIsNotOurs(t *testing.T) {
	for owner, ours := range map[string]bool{
		"uid 997 (postern), pid 12 (postern)":         true,
		"uid 997 (postern)":                           true,
		"uid 0 (root), pid 1 (systemd)":               true,
		"uid 0, pid 1 (systemd)":                      true,
		"uid 0 (root), pid 12 (postern)":              true,
		"uid 0 (root), pid 12 (python3)":              false,
		"uid 0 (root)":                                false,
		"uid 1001 (eve), pid 12 (postern)":            false,
		"uid 1001 (eve), pid 12 (systemd)":            false,
		"uid 1001 (eve), pid 12 (uid 0), (postern)":   false,
		"uid 1001, pid 12 (postern)":                  false,
		"uid 1001 (eve), pid 12 (x), uid 0 (postern)": false,
	} {
		if got := portOfOurs(owner); got != ours {
			t.Errorf("%s: %v, want %v", owner, got, ours)
		}
	}
}
