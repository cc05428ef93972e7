package interop

import (
	"slices"
	"strings"
	"testing"
)

// selection is one way to name an identity.
type selection struct {
	name string
	args []string
	id   identity
}

func (w *world) selections() []selection {
	return []selection{
		{"system", nil, w.system},
		{"client_id", []string{"client_id", w.user.ClientID}, w.user},
		{"object_id", []string{"object_id", w.user.ObjectID}, w.user},
		{"resource_id", []string{"resource_id", w.user.ResourceID}, w.user},
	}
}

// unsupported says which selections a library itself refuses or cannot express.
func unsupported(client string, f flavour, selector string) string {
	switch {
	case selector == "system":
		return ""
	case client == "azidentity-1.10.1" && f == arc:
		return "doesn't support user-assigned" // when constructed
	case selector == "object_id" && (client == "azidentity-1.5.2" || client == "identity-4.2"):
		return "-" // came later
	}
	return ""
}

func TestEveryClientGetsEveryIdentity(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		for _, f := range []flavour{arc, imds, app} {
			for _, client := range slices.Concat(goClients(), jsClients()) {
				for _, s := range w.selections() {
					words := unsupported(client, f, s.name)
					if words == "-" {
						continue
					}
					t.Run(strings.Join([]string{string(f), client, s.name}, "_"), func(t *testing.T) {
						t.Parallel()
						a := w.ask(t, client, f, member, append([]string{"mi", vault}, s.args...)...)
						if words != "" {
							refused(t, a, words)
							return
						}
						gotToken(t, a, s.id, vault)
					})
				}
			}
		}
	})
}
