package credential

import (
	"fmt"
	"strings"
)

// Selector chooses an identity as a request does (firmware-notes/wire.md). The zero value
// chooses none: the system-assigned identity, or the only user-assigned one.
type Selector struct {
	Key   string // "", "client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"
	Value string
}

// Matches reports whether s names id. GUIDs compare without case, ids of
// resources without case and segment by segment. The zero Selector and an
// unknown key match nothing.
func (s Selector) Matches(id Identity) bool {
	switch s.Key {
	case "client_id":
		return s.Value != "" && strings.EqualFold(s.Value, id.ClientID)
	case "object_id", "principal_id":
		return s.Value != "" && strings.EqualFold(s.Value, id.ObjectID)
	case "msi_res_id", "mi_res_id":
		return sameResource(s.Value, id.ResourceID)
	}
	return false
}

// sameResource compares ids of resources by whole segments; slashes at either
// end do not count, an empty id equals none.
func sameResource(a, b string) bool {
	a, b = strings.Trim(a, "/"), strings.Trim(b, "/")
	if a == "" || b == "" {
		return false
	}
	left, right := strings.Split(a, "/"), strings.Split(b, "/")
	if len(left) != len(right) {
		return false
	}
	for i := range left {
		if left[i] == "" || !strings.EqualFold(left[i], right[i]) {
			return false
		}
	}
	return true
}

// choose finds the holder of the identity that a selector means. It is asked
// for every token and makes no list. mu is held.
func (d *Device) choose(s Selector) (*Holder, error) {
	if s.Key != "" {
		for _, h := range d.holders {
			if s.Matches(h.identity) {
				return h, nil
			}
		}
		return nil, fmt.Errorf("%w: no identity of this device has the %s %q", ErrUnknownIdentity, s.Key, s.Value)
	}
	var only *Holder
	for _, h := range d.holders {
		if h.identity.Kind == SystemAssigned {
			return h, nil
		}
		only = h
	}
	switch len(d.holders) {
	case 0:
		return nil, ErrUnknownIdentity
	case 1:
		return only, nil
	}
	return nil, ErrAmbiguous
}
