package credential

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"postern/agent/lifecycle"
)

func typeName(v any) string { return fmt.Sprintf("%T", v) }

func TestSelectorFindsAnIdentityByEveryName(t *testing.T) {
	sys, user := systemIdentity(), userIdentity(userID, "telemetry")
	rows := []struct {
		key, value string
		want       string // client id; empty: none
	}{
		{"client_id", userID, userID},
		{"client_id", strings.ToUpper(userID), userID},
		{"client_id", systemID, systemID},
		{"client_id", otherID, ""},
		{"client_id", "", ""},
		{"object_id", user.ObjectID, userID},
		{"object_id", strings.ToUpper(sys.ObjectID), systemID},
		{"principal_id", user.ObjectID, userID},
		{"principal_id", userID, ""},
		{"msi_res_id", user.ResourceID, userID},
		{"mi_res_id", user.ResourceID, userID},
		{"mi_res_id", strings.ToUpper(user.ResourceID), userID},
		{"mi_res_id", strings.Trim(user.ResourceID, "/"), userID},
		{"mi_res_id", user.ResourceID + "/", userID},
		{"mi_res_id", strings.ReplaceAll(user.ResourceID, "/", "//"), ""},
		{"mi_res_id", user.ResourceID + "x", ""},
		{"mi_res_id", strings.TrimSuffix(user.ResourceID, "telemetry"), ""},
		{"mi_res_id", "/", ""},
		{"mi_res_id", "", ""},
		{"name", "telemetry", ""},
		{"CLIENT_ID", userID, ""},
	}
	all := []Standing{{Identity: sys}, {Identity: user}}
	for _, row := range rows {
		st, err := choose(all, Selector{row.key, row.value})
		if row.want == "" {
			if !errors.Is(err, ErrUnknownIdentity) || !strings.HasPrefix(err.Error(), "Identity not found") {
				t.Errorf("%s=%q: got %v, %v, want \"Identity not found\"", row.key, row.value, st.Identity.ClientID, err)
			}
			continue
		}
		if err != nil || st.Identity.ClientID != row.want {
			t.Errorf("%s=%q: got %v, %v, want %s", row.key, row.value, st.Identity.ClientID, err, row.want)
		}
	}
}

func TestNoSelectorMeansTheOneThatIsMeant(t *testing.T) {
	sys := Standing{Identity: systemIdentity(), State: lifecycle.Expired}
	one := Standing{Identity: userIdentity(userID, "telemetry")}
	two := Standing{Identity: userIdentity(otherID, "backup")}
	for name, row := range map[string]struct {
		all  []Standing
		want string
		err  error
	}{
		"the system-assigned one, even expired": {[]Standing{one, two, sys}, systemID, nil},
		"the only user-assigned one":            {[]Standing{one}, userID, nil},
		"several user-assigned ones":            {[]Standing{one, two}, "", ErrAmbiguous},
		"none":                                  {nil, "", ErrUnknownIdentity},
	} {
		st, err := choose(row.all, Selector{})
		if !errors.Is(err, row.err) || st.Identity.ClientID != row.want {
			t.Errorf("%s: got %q, %v", name, st.Identity.ClientID, err)
		}
	}
}

// The two texts are read by clients and quoted in documents.
func TestWireTextsOfTheSelectorsErrors(t *testing.T) {
	if got := ErrUnknownIdentity.Error(); got != "Identity not found" {
		t.Errorf("got %q", got)
	}
	if got := ErrAmbiguous.Error(); got != "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request" {
		t.Errorf("got %q", got)
	}
}

func FuzzSelector(f *testing.F) {
	f.Add("client_id", userID)
	f.Add("mi_res_id", "/subscriptions//x")
	f.Add("", "")
	id := userIdentity(userID, "telemetry")
	f.Fuzz(func(t *testing.T, key, value string) {
		s := Selector{key, value}
		if !s.Matches(id) {
			return
		}
		want := map[string]string{"client_id": id.ClientID, "object_id": id.ObjectID, "principal_id": id.ObjectID,
			"msi_res_id": id.ResourceID, "mi_res_id": id.ResourceID}[key]
		if want == "" || !strings.EqualFold(strings.Trim(value, "/"), strings.Trim(want, "/")) {
			t.Fatalf("%s=%q matched %+v", key, value, id)
		}
	})
}
