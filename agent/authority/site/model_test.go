package site

import (
	"net/http"
	"time"

	"pgregory.net/rapid"
)

// model is what the world outside knows of an authority.
type model struct {
	*world
	rt       *rapid.T
	machines map[string]*modelMachine
	users    map[string]string // name -> client id
	claims   []modelClaim
	ended    []*device       // must never work again
	ids      map[string]bool // client, object and machine ids, ever
	serials  map[string]bool
	used     []string // assertions
}

type modelMachine struct {
	name string
	own  *device            // newest certificate of its own
	held map[string]*device // client id -> certificate
	on   map[string]bool    // client id -> assigned
	off  bool               // revoked by an operator: only re-onboarding helps
	left bool               // disconnected by itself: the name may be connected again
}

// dead reports whether nothing of the machine works.
func (m *modelMachine) dead() bool { return m.off || m.left }

type modelClaim struct {
	token     string
	machine   string
	reonboard bool
	of        string // client id that it was made for
	expires   time.Time
}

func (m *model) fatal(format string, args ...any) { m.rt.Helper(); m.rt.Fatalf(format, args...) }

// newID says that an id must not have been given out before.
func (m *model) fresh(id string) {
	m.rt.Helper()
	if m.ids[id] {
		m.fatal("id %s was given out before", id)
	}
	m.ids[id] = true
}

func (m *model) issued(d *device) {
	m.rt.Helper()
	if m.serials[d.serial()] {
		m.fatal("serial %s twice", d.serial())
	}
	m.serials[d.serial()] = true
}

func (m *model) end(devices ...*device) {
	for _, d := range devices {
		if d != nil {
			m.ended = append(m.ended, d)
		}
	}
}

func (m *model) pick() *modelMachine {
	var names []string
	for _, name := range []string{"a", "b", "c"} {
		if m.machines[name] != nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		m.rt.Skip("no machine")
	}
	return m.machines[rapid.SampledFrom(names).Draw(m.rt, "machine")]
}

func (m *model) pickUser() (name, clientID string) {
	var names []string
	for _, name := range []string{"x", "y"} {
		if m.users[name] != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		m.rt.Skip("no identity")
	}
	name = rapid.SampledFrom(names).Draw(m.rt, "identity")
	return name, m.users[name]
}

// try signs with a one-time token and returns nil if it is refused.
func (m *model) try(token string) (*device, int) {
	key := newKey(m.t)
	a := m.post(nil, "/1.0/sign", signBody(m.t, key, token))
	if a.status != http.StatusCreated {
		return nil, a.status
	}
	d := &device{key, chainOf(m.t, a)}
	m.issued(d)
	return d, a.status
}
