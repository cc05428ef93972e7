package interop

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// mark lays the marker file down by which libraries recognise an Arc machine.
func mark(t *testing.T) {
	t.Helper()
	if err := os.Symlink(binary, "/opt/azcmagent/bin/himds"); err != nil {
		t.Fatal(err)
	}
}

func TestDefaultCredentialFindsTheDevice(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		t.Run("without_marker", func(t *testing.T) {
			for _, f := range []flavour{arc, imds, app} { // imds: the library probes the address
				w.asksByDefault(t, f, slices.Concat(goClients(), []string{"identity-4.13", "identity-4.2"}))
			}
		})
		mark(t)
		t.Run("with_marker", func(t *testing.T) {
			w.asksByDefault(t, marker, []string{"azidentity-1.15.0", "azidentity-1.10.1", "identity-4.13"})
		})
	})
}

func (w *world) asksByDefault(t *testing.T, f flavour, clients []string) {
	t.Helper()
	for _, client := range clients {
		t.Run(strings.Join([]string{string(f), client}, "_"), func(t *testing.T) {
			t.Parallel()
			gotToken(t, w.ask(t, client, f, member, "default", vault), w.system, vault)
		})
	}
}

// TestOutsidersGetNothing: an account outside the token group sees that it may
// not read the file over Arc, and who could grant it over IMDS.
func TestOutsidersGetNothing(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		for _, client := range slices.Concat(goClients(), jsClients()) {
			t.Run("arc_"+client, func(t *testing.T) {
				t.Parallel()
				words := "/var/opt/azcmagent/tokens/"
				if !strings.HasPrefix(client, "azidentity") && client != "identity-4.2" {
					words = "Unable to read the secret file" // msal-node
				}
				refused(t, w.ask(t, client, arc, outsider, "mi", vault), words)
			})
			t.Run("imds_"+client, func(t *testing.T) {
				t.Parallel()
				refused(t, w.ask(t, client, imds, outsider, "mi", vault), "2002", "grant")
			})
		}
	})
}

// TestUnknownIdentityIsFinal: one answer, and no library asks again.
func TestUnknownIdentityIsFinal(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		const nobody = "11111111-2222-3333-4444-555555555555"
		for f, requests := range map[flavour]int{arc: 2, imds: 1, app: 1} {
			for _, client := range slices.Concat(goClients(), jsClients()) {
				if unsupported(client, f, "client_id") != "" {
					continue
				}
				t.Run(strings.Join([]string{string(f), client}, "_"), func(t *testing.T) {
					t.Parallel()
					a := w.ask(t, client, f, member, "mi", vault, "client_id", nobody)
					refused(t, a, "Identity not found")
					want := requests
					if f == imds && client == "identity-4.2" {
						want++ // it probes the address
					}
					if a.Requests != want {
						t.Errorf("%d requests, want %d", a.Requests, want)
					}
				})
			}
		}
	})
}
