//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/agent/control"
	"postern/platform/platformtest"
)

func TestAuthorityListensOnOneAddressUnlessToldOtherwise(t *testing.T) {
	for _, row := range []struct {
		listen, url string
		everywhere  bool
		refusal     string // empty: taken
	}{
		{"127.0.0.1:8443", "", false, ""},
		{"192.0.2.10:8443", "", false, ""},
		{"[2001:db8::1]:8443", "", false, ""},
		{"0.0.0.0:8443", "https://ca.test", false, "every interface"},
		{"[::]:8443", "https://ca.test", false, "every interface"},
		{"[::ffff:0.0.0.0]:8443", "https://ca.test", false, ""}, // the platform refuses it: not an address of tcp6
		{":8443", "https://ca.test", true, "names no address"},
		{"0.0.0.0:8443", "", true, "--url is missing"},
		{"0.0.0.0:8443", "https://ca.test", true, ""},
		{"localhost:8443", "", false, "is not an address with a port"},
		{"8443", "", true, "is not an address with a port"},
	} {
		a := authorityAddress{listen: row.listen, url: row.url, everywhere: row.everywhere}
		l, err := a.listener()
		if row.refusal == "" {
			if err != nil || l.Address != row.listen || l.Everywhere != row.everywhere || l.Loopback || a.url == "" {
				t.Errorf("%+v: %+v, url %q, %v", row, l, a.url, err)
			}
			continue
		}
		f := control.AsFault(err)
		if f == nil || f.Exit != control.ExitUsage || !strings.Contains(f.Message, row.refusal) || f.Fix == "" {
			t.Errorf("%+v: got %+v", row, f)
		}
	}
}

// TestAuthorityListensByTheRulesOfThePlatform: Go listens with MPTCP by itself,
// which a sandbox's rule for ports does not see. A client that offers it learns
// what the server's socket speaks.
func TestAuthorityListensByTheRulesOfThePlatform(t *testing.T) {
	address, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ca := begin(t, nil, "authority", "run", "--dir", filepath.Join(platformtest.Dir(t), "ca"), "--listen", address)
	ca.says(t, "site authority on https://"+address)
	if speaksMPTCP(t, address) {
		t.Error("the authority speaks MPTCP")
	}
	ca.stop(t)

	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	other, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() //nolint:errcheck // a test's listener
	if raw, err := os.ReadFile("/proc/sys/net/mptcp/enabled"); err == nil && string(raw) == "1\n" && !speaksMPTCP(t, other.Addr().String()) {
		t.Error("this test would not notice MPTCP")
	}
}

// TestAuthorityKeepsItsMemory: it holds the keys of every device's root (T16).
func TestAuthorityKeepsItsMemory(t *testing.T) {
	address, release, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ca := begin(t, nil, "authority", "run", "--dir", filepath.Join(platformtest.Dir(t), "ca"), "--listen", address)
	ca.says(t, "site authority on https://"+address)
	for file, want := range map[string]string{"limits": "Max core file size        0                    0 ", "status": "NoNewPrivs:\t1\n"} {
		if withC && file == "status" {
			continue // C's threads cannot be told all at once
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", ca.Process.Pid, file))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q, %v", file, want, err)
		}
	}
	ca.stop(t)
}

func speaksMPTCP(t *testing.T, address string) bool {
	t.Helper()
	var d net.Dialer
	d.SetMultipathTCP(true)
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was asked
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("%T", conn)
	}
	multi, err := tcp.MultipathTCP()
	if err != nil {
		t.Fatal(err)
	}
	return multi
}
