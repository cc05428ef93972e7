package credential

import (
	"errors"
	"fmt"
	"strings"
	"testing"
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
	device := deviceOf(sys, user)
	for _, row := range rows {
		st, err := device.choose(Selector{row.key, row.value})
		if row.want == "" {
			if !errors.Is(err, ErrUnknownIdentity) || !strings.HasPrefix(err.Error(), "Identity not found") {
				t.Errorf("%s=%q: got %v, %v, want \"Identity not found\"", row.key, row.value, st, err)
			}
			continue
		}
		if err != nil || st.identity.ClientID != row.want {
			t.Errorf("%s=%q: got %v, %v, want %s", row.key, row.value, st, err, row.want)
		}
	}
}

func TestNoSelectorMeansTheOneThatIsMeant(t *testing.T) {
	sys, one, two := systemIdentity(), userIdentity(userID, "telemetry"), userIdentity(otherID, "backup")
	for name, row := range map[string]struct {
		all  []Identity
		want string
		err  error
	}{
		"the system-assigned one":    {[]Identity{one, two, sys}, systemID, nil},
		"the only user-assigned one": {[]Identity{one}, userID, nil},
		"several user-assigned ones": {[]Identity{one, two}, "", ErrAmbiguous},
		"none":                       {nil, "", ErrUnknownIdentity},
	} {
		h, err := deviceOf(row.all...).choose(Selector{})
		if !errors.Is(err, row.err) || err == nil && h.identity.ClientID != row.want {
			t.Errorf("%s: got %+v, %v", name, h, err)
		}
	}
}

// deviceOf is a device with holders and nothing else.
func deviceOf(ids ...Identity) *Device {
	d := &Device{holders: map[string]*Holder{}}
	for _, id := range ids {
		d.holders[id.ClientID] = &Holder{id: id.ClientID, identity: id}
	}
	return d
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
		want := map[string]string{
			"client_id": id.ClientID, "object_id": id.ObjectID, "principal_id": id.ObjectID,
			"msi_res_id": id.ResourceID, "mi_res_id": id.ResourceID,
		}[key]
		if want == "" || !strings.EqualFold(strings.Trim(value, "/"), strings.Trim(want, "/")) {
			t.Fatalf("%s=%q matched %+v", key, value, id)
		}
	})
}
