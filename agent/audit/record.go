package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"postern/agent/lifecycle"
	"postern/platform"
)

// Schema is the first value of every record.
const Schema = "postern.audit/1"

// Record is one record as it stands in the ring and in exports. The order of
// the fields is part of the schema: the digest in Prev is taken over the bytes.
// Absent means unknown.
type Record struct {
	Schema   string    `json:"schema"`
	Seq      uint64    `json:"seq"`            // from 1, without gaps
	Time     time.Time `json:"time"`           // UTC, whole seconds, by our wall clock
	Clock    string    `json:"clock"`          // "trusted" or "untrusted": what Time is worth
	Boot     string    `json:"boot,omitempty"` // boot id
	Mode     string    `json:"mode,omitempty"` // "dev": not a device
	Event    Name      `json:"event"`
	Reason   string    `json:"reason,omitempty"`
	Flavour  string    `json:"flavour,omitempty"`
	Identity string    `json:"identity,omitempty"`
	Resource string    `json:"resource,omitempty"`
	Caller   *Caller   `json:"caller,omitempty"` // absent if nobody asked
	Source   string    `json:"source,omitempty"`
	Token    string    `json:"token,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
	Count    uint64    `json:"count"` // equal events that this record stands for
	Prev     string    `json:"prev"`  // hex SHA-256 of the record before; of the first, 64 zeros
}

// Caller is who asked. Without a uid and a peer the account is unknown.
type Caller struct {
	UID      *uint32 `json:"uid,omitempty"`
	Peer     string  `json:"peer,omitempty"` // a peer that is no Unix user: "sid:S-1-5-…", "workload:web"
	User     string  `json:"user,omitempty"`
	Listener string  `json:"listener,omitempty"`
	Agent    string  `json:"agent,omitempty"`
}

// callerOf returns the caller of e, nil if nobody asked.
func callerOf(e *Event, user string) *Caller {
	if e.Peer == platform.Unknown && e.Listener == "" && e.Agent == "" {
		return nil
	}
	c := &Caller{User: clean(user, maxShort), Listener: e.Listener, Agent: e.Agent}
	if uid, ok := e.Peer.UID(); ok {
		c.UID = &uid
	} else {
		c.Peer = string(e.Peer)
	}
	return c
}

// digest is what the next record carries.
type digest string

// genesis stands before the first record: as many zeros as a digest has digits.
const genesis digest = "0000000000000000000000000000000000000000000000000000000000000000"

func digestOf(line []byte) digest {
	sum := sha256.Sum256(line)
	return digest(hex.EncodeToString(sum[:]))
}

// encode writes a record as one line without the newline.
func encode(r *Record) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

var errNotRecord = errors.New("not an audit record")

// decode reads a line back, for Verify and for the start.
func decode(line []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotRecord, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%w: schema %.40q, want %q", errNotRecord, r.Schema, Schema)
	}
	if r.Seq == 0 {
		return nil, fmt.Errorf("%w: it has no number", errNotRecord)
	}
	return r, nil
}

// newRecord makes the record of count events like e, which must be clean.
func newRecord(e *Event, user, mode string, at lifecycle.Instant, count uint64) Record {
	worth := "untrusted"
	if at.Trusted {
		worth = "trusted"
	}
	r := Record{
		Schema: Schema, Time: at.Wall.UTC().Truncate(time.Second), Clock: worth, Boot: at.BootID, Mode: mode,
		Event: e.Name, Reason: e.Reason, Flavour: e.Flavour, Identity: e.Identity, Resource: e.Resource,
		Caller: callerOf(e, user), Source: e.Source, Token: e.Token, Count: count,
	}
	if !e.Expires.IsZero() {
		r.Expires = e.Expires.UTC().Truncate(time.Second)
	}
	return r
}
