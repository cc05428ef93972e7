package interop

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// expectation is what every client must show while the device is in a state.
type expectation struct {
	words     []string // in the text that a caller sees
	chainOn   bool     // azidentity's chain goes on over IMDS; over Arc it never does
	transient bool     // retried, so asked by few clients only
}

// eachClient asks with every client over Arc and over IMDS for a resource of
// which there is no token, and checks what its caller gets to read.
func (w *world) eachClient(t *testing.T, resource string, e expectation) {
	t.Helper()
	clients := slices.Concat(goClients(), jsClients())
	if e.transient {
		clients = []string{"azidentity-1.15.0", "identity-4.13", "msal-node-7"}
	}
	for _, f := range []flavour{arc, imds} {
		for _, client := range clients {
			if e.transient && f == imds && strings.HasPrefix(client, "azidentity") {
				continue // six tries, 10 s and more apart
			}
			t.Run(strings.Join([]string{string(f), client}, "_"), func(t *testing.T) {
				t.Parallel()
				refused(t, w.ask(t, client, f, member, "mi", resource), e.words...)
			})
		}
	}
	if e.transient {
		return
	}
	for f, want := range map[flavour]bool{arc: false, imds: e.chainOn} {
		t.Run(string(f)+"_go_chain", func(t *testing.T) {
			t.Parallel()
			if a := w.ask(t, "azidentity-1.15.0", f, member, "chain", resource); a.Next != want {
				t.Errorf("the chain went on: %t, want %t: %s", a.Next, want, a.Error)
			}
		})
		t.Run(string(f)+"_js_chain", func(t *testing.T) {
			t.Parallel()
			if a := w.ask(t, "identity-4.13", f, member, "chain", resource); !a.Next {
				t.Errorf("the chain did not go on: %s", a.Error)
			}
		})
	}
}

// inState fails the test unless the device comes to be in a state.
func inState(t *testing.T, want string) {
	t.Helper()
	eventually(t, "the state is "+want, func() bool { return state(t) == want })
}

func TestUnenrolledDeviceSaysSoAndChainsGoOn(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		inState(t, "Unenrolled")
		w.eachClient(t, vault, expectation{words: []string{"Identity not found", "postern connect"}, chainOn: true})
	})
}

func TestOfflineDeviceServesWhatItHas(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		before := w.ask(t, "azidentity-1.15.0", arc, member, "mi", vault)
		gotToken(t, before, w.system, vault)
		w.cut(t)
		inState(t, "Offline")
		w.cachedFor(t, before)
		w.eachClient(t, storage, expectation{words: []string{"Offline"}, transient: true})
	})
}

// cachedFor checks that clients of all kinds still get the token from before.
func (w *world) cachedFor(t *testing.T, before answer) {
	t.Helper()
	for client, f := range map[string]flavour{"azidentity-1.15.0": arc, "azidentity-1.10.1": imds, "identity-4.13": app, "msal-node-7": arc} {
		t.Run("cached_"+client, func(t *testing.T) {
			t.Parallel()
			a := w.ask(t, client, f, member, "mi", vault)
			gotToken(t, a, w.system, vault)
			if a.Digest != before.Digest {
				t.Errorf("token %s, want the one from before, %s", a.Digest, before.Digest)
			}
		})
	}
}

// TestRebootWithoutClockAndNetworkIsSaidAndHeals: another boot id, no authority, a kernel
// that nothing steers. The token of before cannot be proven to live.
func TestRebootWithoutClockAndNetworkIsSaidAndHeals(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		gotToken(t, w.ask(t, "azidentity-1.15.0", arc, member, "mi", vault), w.system, vault)
		w.cut(t)
		w.restart(t, func() { over(t, "/proc/sys/kernel/random/boot_id", "3f0c5a52-6f6e-4f0e-9c57-6d2f3c1d8a11\n") })
		if state(t) != "ClockUntrusted" {
			t.Skip("this machine's kernel is synchronised: its clock is believed without an authority")
		}
		t.Run("untrusted", func(t *testing.T) {
			w.eachClient(t, vault, expectation{words: []string{"ClockUntrusted"}, transient: true})
		})
		w.startAuthority(t)
		inState(t, "Connected")
		gotToken(t, w.ask(t, "azidentity-1.15.0", arc, member, "mi", vault), w.system, vault)
	})
}

func TestCopiedDeviceGetsNoTokens(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		gotToken(t, w.ask(t, "azidentity-1.15.0", arc, member, "mi", vault), w.system, vault)
		w.restart(t, func() {
			write(t, "/sys/class/dmi/id/board_serial", "board-2")
			write(t, "/sys/class/dmi/id/product_uuid", "uuid-2")
		})
		inState(t, "Moved")
		w.eachClient(t, vault, expectation{words: []string{"Moved", "postern adopt --hardware-changed"}})
	})
}

func TestDamagedIdentityIsNamedAndNothingIsServed(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		w.restart(t, func() {
			spoil(t, "/run/state/identity.db")
			spoil(t, "/run/state/identity.db.bak")
		})
		inState(t, "Damaged")
		w.eachClient(t, vault, expectation{words: []string{"Damaged"}})
	})
}

// spoil overwrites a file in place, as a dying card does.
func spoil(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte{0xa5}, len(content))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
