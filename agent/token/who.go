package token

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"postern/platform"
)

// whoKind is what stands before the colon of a grant's who.
type whoKind uint8

const (
	whoPeer     whoKind = 1 // uid, sid, workload: an exact peer
	whoUser     whoKind = 2 // a name, resolved when it is asked for
	whoGroup    whoKind = 3
	whoListener whoKind = 4
)

// who is the parsed form of a grant's Who.
type who struct {
	kind whoKind
	peer platform.Peer // whoPeer
	name string        // whoUser, whoGroup, whoListener
}

const (
	maxName  = 256 // bytes of a user, group, listener or identity
	whoForms = `"uid:1001", "user:NAME", "group:NAME" or "listener:NAME"`
)

// parseWho reads one who. The accepted forms are uid:N, user:NAME, group:NAME
// and listener:NAME; and the two other peers that a platform can name, sid:S-1-…
// and workload:NAME.
func parseWho(s string) (who, error) {
	form, name, found := strings.Cut(s, ":")
	if !found {
		return who{}, fmt.Errorf("who %s: want %s", quote(s), whoForms)
	}
	if problem := badName(name); problem != "" {
		return who{}, fmt.Errorf("who %s: %s", quote(s), problem)
	}
	switch form {
	case "uid":
		return parseUID(s, name)
	case "sid":
		if !strings.HasPrefix(name, "S-1-") {
			return who{}, fmt.Errorf("who %s: a security identifier begins with S-1-", quote(s))
		}
		return who{kind: whoPeer, peer: platform.Peer(s)}, nil
	case "workload":
		return who{kind: whoPeer, peer: platform.Peer(s)}, nil
	case "user":
		return who{kind: whoUser, name: name}, nil
	case "group":
		return who{kind: whoGroup, name: name}, nil
	case "listener":
		return who{kind: whoListener, name: name}, nil
	}
	return who{}, fmt.Errorf("who %s: no form is called %s; want %s", quote(s), quote(form), whoForms)
}

// parseUID takes the canonical decimal form only, so that one account has one
// spelling. 4294967295 is no account: it is (uid_t)-1.
func parseUID(s, digits string) (who, error) {
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != digits || n == 1<<32-1 {
		return who{}, fmt.Errorf("who %s: a user id is a number from 0 to 4294967294", quote(s))
	}
	return who{kind: whoPeer, peer: platform.UIDPeer(uint32(n))}, nil
}

// badName says what is wrong with a name; empty if nothing. Spaces inside are
// fine: "Hybrid agent extension applications" is a group.
func badName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > maxName:
		return fmt.Sprintf("the name is longer than %d bytes", maxName)
	case strings.TrimSpace(name) != name:
		return "the name begins or ends with a space"
	}
	for _, r := range name {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return "the name has a character that cannot be printed"
		}
	}
	return ""
}

// quote shows a foreign string in an error, cut and safe for a terminal.
func quote(s string) string {
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "") + "…"
	}
	return strconv.QuoteToGraphic(s)
}
