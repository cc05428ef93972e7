package site

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent/authority/jws"
)

func (m *model) Claim(rt *rapid.T) {
	m.rt = rt
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "machine")
	re := rapid.Bool().Draw(rt, "reonboard")
	c, err := m.a.CreateClaim(context.Background(), ClaimRequest{Machine: name, Reonboard: re})
	there := m.machines[name]
	switch {
	case re && there == nil:
		if !errors.Is(err, ErrNotFound) {
			m.fatal("re-onboard %s, which is not there: %v", name, err)
		}
		return
	case !re && there != nil && !there.left:
		if !errors.Is(err, ErrExists) {
			m.fatal("onboard %s, which is there: %v", name, err)
		}
		return
	case err != nil:
		m.fatal("claim for %s (reonboard %v): %v", name, re, err)
	}
	token := c.Token.Reveal()
	m.claims = append(m.claims, modelClaim{token, name, re, claimsOf(m.t, token).Subject, c.Expires})
}

func (m *model) UseClaim(rt *rapid.T) {
	m.rt = rt
	if len(m.claims) == 0 {
		rt.Skip("no claim")
	}
	i := rapid.IntRange(0, len(m.claims)-1).Draw(rt, "claim")
	c := m.claims[i]
	there := m.machines[c.machine]
	d, status := m.try(c.token)
	over := m.clock.Now().After(c.expires.Add(ottLeeway))
	want := http.StatusCreated
	switch {
	case over:
		want = http.StatusUnauthorized
	case c.reonboard && (there == nil || there.own.clientID() != c.of):
		want = http.StatusUnauthorized
	case !c.reonboard && there != nil && !there.left:
		want = http.StatusForbidden
	}
	if status != want {
		m.fatal("claim for %s (reonboard %v): %d, want %d", c.machine, c.reonboard, status, want)
	}
	if d == nil {
		return
	}
	m.claims = append(m.claims[:i:i], m.claims[i+1:]...)
	if again, status := m.try(c.token); again != nil {
		m.fatal("a claim was used twice: %d", status)
	}
	if c.reonboard {
		m.end(there.own)
		there.own, there.off, there.left = d, false, false
		return
	}
	record, err := m.a.MachineByName(context.Background(), c.machine)
	m.must(err)
	for _, id := range []string{record.VMID, record.ClientID, record.ObjectID} {
		m.fresh(id)
	}
	m.machines[c.machine] = &modelMachine{name: c.machine, own: d, held: map[string]*device{}, on: map[string]bool{}}
}

func (m *model) Renew(rt *rapid.T) {
	m.rt = rt
	machine := m.pick()
	if machine.dead() {
		rt.Skip("dead")
	}
	old := machine.own
	machine.own = m.rekey(old)
	m.issued(machine.own)
	if rapid.Bool().Draw(rt, "retire") {
		m.selfRevoke(old, 4)
		m.end(old)
	}
}

func (m *model) Create(rt *rapid.T) {
	m.rt = rt
	name := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "name")
	i, err := m.a.CreateIdentity(context.Background(), name, "")
	if m.users[name] != "" {
		if !errors.Is(err, ErrExists) {
			m.fatal("second identity %s: %v", name, err)
		}
		return
	}
	m.must(err)
	m.fresh(i.ClientID)
	m.fresh(i.ObjectID)
	m.users[name] = i.ClientID
}

func (m *model) Assign(rt *rapid.T) {
	m.rt = rt
	machine := m.pick()
	name, clientID := m.pickUser()
	m.must(m.a.Assign(context.Background(), name, machine.name))
	machine.on[clientID] = true
}

func (m *model) Unassign(rt *rapid.T) {
	m.rt = rt
	machine := m.pick()
	name, clientID := m.pickUser()
	err := m.a.Unassign(context.Background(), name, machine.name)
	if machine.on[clientID] != (err == nil) {
		m.fatal("unassign %s from %s: %v", name, machine.name, err)
	}
	m.end(machine.held[clientID])
	delete(machine.on, clientID)
	delete(machine.held, clientID)
}

func (m *model) DeleteIdentity(rt *rapid.T) {
	m.rt = rt
	name, clientID := m.pickUser()
	force := rapid.Bool().Draw(rt, "force")
	assigned := false
	for _, machine := range m.machines {
		assigned = assigned || machine.on[clientID]
	}
	err := m.a.DeleteIdentity(context.Background(), name, force)
	if assigned && !force {
		if !errors.Is(err, ErrAssigned) {
			m.fatal("delete %s: %v", name, err)
		}
		return
	}
	m.must(err)
	delete(m.users, name)
	for _, machine := range m.machines {
		m.end(machine.held[clientID])
		delete(machine.on, clientID)
		delete(machine.held, clientID)
	}
}

// Sync is a heartbeat: fetch what is on offer.
func (m *model) Sync(rt *rapid.T) {
	m.rt = rt
	machine := m.pick()
	if machine.dead() {
		rt.Skip("dead")
	}
	l := m.list(machine.own)
	if len(l.Identities) != 1+len(machine.on) {
		m.fatal("%s lists %d identities, want %d", machine.name, len(l.Identities), 1+len(machine.on))
	}
	for _, i := range l.Identities[1:] {
		if !machine.on[i.ClientID] {
			m.fatal("%s lists %s, which is not assigned", machine.name, i.Name)
		}
		if i.Enroll == nil {
			continue
		}
		if held := machine.held[i.ClientID]; held != nil && m.tokenFor(held, vault).status == http.StatusOK && rapid.Bool().Draw(rt, "lazy") {
			continue
		}
		d, status := m.try(i.Enroll.OTT)
		if d == nil {
			m.fatal("enrol %s: %d", i.Name, status)
		}
		m.end(machine.held[i.ClientID])
		machine.held[i.ClientID] = d
		if again, _ := m.try(i.Enroll.OTT); again != nil {
			m.fatal("an enrolment was used twice")
		}
	}
}

func (m *model) Token(rt *rapid.T) {
	m.rt = rt
	machine := m.pick()
	devices := []*device{machine.own}
	for _, name := range []string{"x", "y"} {
		if d := machine.held[m.users[name]]; d != nil {
			devices = append(devices, d)
		}
	}
	d := rapid.SampledFrom(devices).Draw(rt, "device")
	assertion := m.assertion(d, jws.ES256, nil)
	a := m.token(nil, assertionForm(d, assertion, vault))
	if (a.status == http.StatusOK) == machine.dead() {
		m.fatal("token of %s (dead %v): %d %s", machine.name, machine.dead(), a.status, a.body)
	}
	if a.status == http.StatusOK {
		m.used = append(m.used, assertion)
	}
}

func (m *model) Replay(rt *rapid.T) {
	m.rt = rt
	if len(m.used) == 0 {
		rt.Skip("none")
	}
	assertion := rapid.SampledFrom(m.used).Draw(rt, "assertion")
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {fmt.Sprint(payload(m.t, assertion)["sub"])}, "resource": {vault},
		"client_assertion_type": {assertionType}, "client_assertion": {assertion},
	}
	if a := m.token(nil, form); a.status == http.StatusOK {
		m.fatal("an assertion was taken twice")
	}
}

func (m *model) RevokeMachine(rt *rapid.T) {
	m.rt = rt
	machine := m.pick()
	m.must(m.a.RevokeMachine(context.Background(), machine.name))
	machine.off = true
	m.end(machine.own)
	for _, d := range machine.held {
		m.end(d)
	}
	machine.held = map[string]*device{}
}

func (m *model) Disconnect(rt *rapid.T) {
	m.rt = rt
	machine := m.pick()
	m.end(machine.own)
	for _, d := range machine.held {
		m.end(d)
	}
	machine.held = map[string]*device{}
	if machine.dead() || rapid.Bool().Draw(rt, "operator") {
		m.must(m.a.DeleteMachine(context.Background(), machine.name))
		delete(m.machines, machine.name)
		return
	}
	m.selfRevoke(machine.own, cessationOfOperation)
	machine.left = true
}

func (m *model) Wait(rt *rapid.T) {
	m.clock.add(time.Duration(rapid.IntRange(1, 400).Draw(rt, "minutes")) * time.Minute)
}

func (m *model) Restart(rt *rapid.T) {
	m.rt = rt
	m.restart()
}

// Check is run after each step.
func (m *model) Check(rt *rapid.T) {
	m.rt = rt
	if err := m.a.checkLedger(); err != nil {
		m.fatal("%v", err)
	}
	for _, d := range m.ended {
		if _, err := m.a.lookUp(d.serial(), d.leaf().Raw); err == nil {
			m.fatal("certificate %s of %s has ended and works", d.serial(), d.clientID())
		}
	}
	for _, machine := range m.machines {
		for clientID, d := range machine.held {
			if _, err := m.a.lookUp(d.serial(), d.leaf().Raw); err != nil {
				m.fatal("%s lost %s: %v", machine.name, clientID, err)
			}
		}
		if _, err := m.a.lookUp(machine.own.serial(), machine.own.leaf().Raw); (err != nil) != machine.dead() {
			m.fatal("%s: %v", machine.name, err)
		}
	}
}

func TestNoHistoryRevivesACredentialOrAnID(t *testing.T) {
	t.Parallel()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		// Each check is some hundred commits to a real disk.
		defer func() { _ = f.Value.Set(f.DefValue) }()
		if err := f.Value.Set("15"); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := looseWorld(t)
		defer w.close()
		m := &model{
			world: w, machines: map[string]*modelMachine{}, users: map[string]string{}, ids: map[string]bool{}, serials: map[string]bool{},
		}
		m.addVault()
		rt.Repeat(rapid.StateMachineActions(m))
	})
}
