package interop

import (
	"bytes"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

// expectation is what every client must show while the device is in a state.
type expectation struct {
	words     []string // in the text that a caller sees
	answer    string   // code and status on the wire, as curl shows them
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
	for _, f := range []flavour{arc, imds} {
		t.Run(string(f)+"_curl", func(t *testing.T) {
			t.Parallel()
			w.curls(t, f, resource, e)
		})
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

// curls asks as the documented recipes do.
func (w *world) curls(t *testing.T, f flavour, resource string, e expectation) {
	t.Helper()
	script := recipe
	if f == imds {
		script = `curl -s -H Metadata:true "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net"`
	}
	script = strings.ReplaceAll(script, "https%3A%2F%2Fvault.azure.net", url.QueryEscape(resource))
	script = strings.ReplaceAll(script, "curl -s -H", `curl -s -w " %{http_code}" -H`) // all but the one for the challenge
	out := w.as(t, member, nil, "bash", "-c", script)
	code, status, _ := strings.Cut(e.answer, " ")
	for _, want := range append([]string{`"error":"` + code + `"`}, e.words...) {
		if !strings.Contains(out, want) {
			t.Errorf("curl shows no %q: %s", want, out)
		}
	}
	if !strings.HasSuffix(out, " "+status) {
		t.Errorf("status is not %s: %s", status, out)
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
		w.eachClient(t, vault, expectation{words: []string{"Identity not found", "postern connect"}, answer: "invalid_request 400", chainOn: true})
	})
}

// TestDisconnectedDeviceForgetsItsTokens: what was cached a moment before is
// not served any more.
func TestDisconnectedDeviceForgetsItsTokens(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		gotToken(t, w.ask(t, "azidentity-1.15.0", arc, member, "mi", vault), w.system, vault)
		must(t, binary, "disconnect", "--yes", "--config", settings)
		inState(t, "Unenrolled")
		w.eachClient(t, vault, expectation{words: []string{"Identity not found", "postern connect"}, answer: "invalid_request 400", chainOn: true})
	})
}

// TestExpiredDeviceServesWhatItHasUntilItIsReconnected: the certificate ends
// while the authority is away. A person's claim heals the device's own identity,
// an operator's word the assigned one.
func TestExpiredDeviceServesWhatItHasUntilItIsReconnected(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.life = "90s"
		w.connect(t)
		before := w.ask(t, "azidentity-1.15.0", arc, member, "mi", vault)
		gotToken(t, before, w.system, vault)
		w.cut(t)
		inState(t, "Expired")
		t.Run("over", func(t *testing.T) {
			w.cachedFor(t, before)
			w.eachClient(t, storage, expectation{words: []string{"Expired", "postern reconnect"}, answer: "unauthorized_client 403"})
		})
		w.life = ""
		w.startAuthority(t)
		must(t, binary, "reconnect", "--config", settings, "--claim-file", w.claim(t, "--reonboard"))
		must(t, binary, "authority", "identity", "assign", "telemetry", "gw-1", "--renew", "--dir", ca)
		w.bothConnected(t)
		t.Run("reconnected", func(t *testing.T) {
			for client, f := range map[string]flavour{"azidentity-1.15.0": arc, "identity-4.13": imds, "msal-node-7": app} {
				t.Run(client, func(t *testing.T) {
					t.Parallel()
					gotToken(t, w.ask(t, client, f, member, "mi", storage), w.system, storage)
					gotToken(t, w.ask(t, client, f, member, "mi", storage, "client_id", w.user.ClientID), w.user, storage)
				})
			}
		})
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
		w.eachClient(t, storage, expectation{words: []string{"Offline"}, answer: "temporarily_unavailable 503", transient: true})
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
			w.eachClient(t, vault, expectation{words: []string{"ClockUntrusted"}, answer: "temporarily_unavailable 503", transient: true})
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
		w.eachClient(t, vault, expectation{words: []string{"Moved", "postern adopt --hardware-changed"}, answer: "unauthorized_client 403"})
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
		w.eachClient(t, vault, expectation{words: []string{"Damaged"}, answer: "unauthorized_client 403"})
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
