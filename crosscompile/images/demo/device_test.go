//go:build linux

package main

import (
	"strings"
)

// identity is the client id of the device, which must be connected or offline.
func (m *machine) identity() string {
	m.t.Helper()
	s := m.status()
	if len(s.Identities) == 0 || s.State != "Connected" && s.State != "Offline" {
		m.t.Fatalf("the device has no identity in use: %+v\n%s", s, m.vm.Tail(40))
	}
	return s.Identities[0].ClientID
}

// token takes one over the control socket.
func (m *machine) token() string {
	m.t.Helper()
	token := m.must("postern", "token", "--resource", resource)
	if strings.Count(token, ".") != 2 {
		m.t.Fatalf("this is no token: %d bytes", len(token))
	}
	return token
}

// gone waits until a file is not there any more.
func (m *machine) gone(path string) {
	m.t.Helper()
	for range 100 {
		if m.try("ls", path).Code != 0 {
			return
		}
		m.must("usleep", "200000")
	}
	m.t.Errorf("%s is still there", path)
}

// owned checks that a file belongs to the agent's account and to nobody else.
func (m *machine) owned(path string) {
	m.t.Helper()
	if line := m.must("ls", "-l", path); !strings.HasPrefix(line, "-rw-------") || !strings.Contains(line, " postern ") {
		m.t.Errorf("%s: want 0600 of postern", line)
	}
}
