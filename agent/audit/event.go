package audit

import (
	"strings"
	"time"
	"unicode"

	"postern/platform"
)

// Name is what happened.
type Name string

// The events of the audit record.
const (
	TokenIssued      Name = "token-issued"
	TokenDenied      Name = "token-denied"
	ChallengeRefused Name = "challenge-refused"
	StateChanged     Name = "state-changed"
	Renewed          Name = "renewed"
	Connected        Name = "connected"
	Disconnected     Name = "disconnected"
	AccessDrift      Name = "access-drift"
	ClockJumped      Name = "clock-jumped"
	StoreRecovered   Name = "store-recovered"
)

// denied reports whether the event is a refusal that a caller can repeat at will.
func (n Name) denied() bool { return n == TokenDenied || n == ChallengeRefused }

// urgent reports whether the record should reach the disk soon: it is about
// the device's own life, which no caller can make happen.
func (n Name) urgent() bool { return !n.denied() && n != TokenIssued }

// Event is something that happened. It is a value. Strings may come from
// strangers: they are cut and cleaned when the record is made.
type Event struct {
	Name     Name
	Reason   string // "grant 2"; "Connected to Offline: no contact for 15m0s"
	Flavour  string // "arc", "imds", "appservice", "control"
	Identity string // client id
	Resource string

	Peer     platform.Peer // who asked; Unknown if that could not be found out, or if nobody did
	Listener string        // where; empty if nobody asked
	Agent    string        // User-Agent

	Source  string    // "cache", "fetched"
	Token   string    // first 8 hex digits of its SHA-256
	Expires time.Time // of the token, or of the new certificate; zero if there is none

	// Logged says that the sender wrote a log line of its own already.
	Logged bool
}

const sourceCache = "cache"

// routine reports whether the event is a token from the cache: by far the most
// frequent, and the least worth a flash page or a log line of its own.
func (e *Event) routine() bool { return e.Name == TokenIssued && e.Source == sourceCache }

// foldKey is what makes two events equal repeats. The User-Agent is not part
// of it: a caller could make every request a record by changing it. Nor are,
// for refusals, the identity and the resource: one record a peer, reason and
// minute (firmware-notes/attack-surface.md, T29).
type foldKey struct {
	name                                Name
	reason, flavour, identity, resource string
	peer                                platform.Peer
	listener, source, token             string
}

func (e *Event) foldKey() foldKey {
	k := foldKey{
		name: e.Name, reason: e.Reason, flavour: e.Flavour, identity: e.Identity, resource: e.Resource,
		peer: e.Peer, listener: e.Listener, source: e.Source, token: e.Token,
	}
	if e.Name.denied() {
		k.identity, k.resource, k.token = "", "", ""
	}
	return k
}

// Bounds of strings in a record, in bytes (firmware-notes/limits.md).
const (
	maxReason   = 256
	maxResource = 2048
	maxAgent    = 256
	maxShort    = 128
)

// cleaned returns e with every foreign string cut and printable.
func (e Event) cleaned() Event {
	for _, s := range []struct {
		text *string
		most int
	}{
		{&e.Reason, maxReason},
		{&e.Flavour, maxShort},
		{&e.Identity, maxShort},
		{&e.Resource, maxResource},
		{&e.Listener, maxShort},
		{&e.Agent, maxAgent},
		{&e.Source, maxShort},
		{&e.Token, maxShort},
	} {
		*s.text = clean(*s.text, s.most)
	}
	e.Peer = platform.Peer(clean(string(e.Peer), maxShort))
	return e
}

// clean cuts s to most bytes and puts a mark in the place of what cannot be
// printed: JSON escapes C0 controls only, and a terminal obeys C1 and
// direction marks too (firmware-notes/attack-surface.md, T30).
func clean(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
	if len(s) > most { // marks are longer than what they stand for
		s, cut = strings.ToValidUTF8(s[:most], ""), true
	}
	if cut {
		s += "…"
	}
	return s
}
