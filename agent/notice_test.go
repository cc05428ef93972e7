package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/audit"
	"postern/agent/lifecycle"
)

// audited are the audit records of one kind.
func (s *simulation) audited(name audit.Name) (records []audit.Record) {
	s.t.Helper()
	s.must(s.g.audit.Read(context.Background(), 0, false, func(line []byte) error {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		if r.Event == name {
			records = append(records, r)
		}
		return nil
	}))
	return records
}

// records are the reasons that stand in them.
func (s *simulation) records(name audit.Name) (reasons []string) {
	s.t.Helper()
	for _, r := range s.audited(name) {
		reasons = append(reasons, r.Reason)
	}
	return reasons
}

// TestAuditSaysWhichStateItWas: a record of a change says from where to where,
// and the first one where it begins; only certificates and tokens expire.
func TestAuditSaysWhichStateItWas(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		s.link.set("refused")
		s.awake(30 * time.Minute)
		changes := s.audited(audit.StateChanged)
		if len(changes) != 4 {
			t.Errorf("of two identities: %+v", changes)
		}
		for i, r := range changes {
			begin := "Connected"
			if i >= 2 {
				begin = "Connected to Offline: the authority was last heard "
			}
			if !strings.HasPrefix(r.Reason, begin) || !r.Expires.IsZero() {
				t.Errorf("record %d: reason %q, expires %v", r.Seq, r.Reason, r.Expires)
			}
		}
		for _, r := range s.audited(audit.Connected) {
			if r.Expires.IsZero() {
				t.Errorf("record %d: no end of the certificate", r.Seq)
			}
		}
	})
}

func TestAuditKeepsThatTheClockWasSet(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.suspend(12 * time.Hour)
		s.awake(5 * time.Minute)
		s.sim.Step(4 * time.Minute)
		s.awake(time.Minute)
		s.sim.Step(-4 * time.Minute)
		s.awake(time.Minute)
		if got := s.records(audit.ClockJumped); len(got) != 0 {
			t.Errorf("a suspend and a clock that is a little off are no jumps: %q", got)
		}
		for _, step := range []struct {
			by   time.Duration
			want string
		}{
			{48 * time.Hour, "the clock was set ahead by 2 d 0 h to "},
			{-48 * time.Hour, "the clock was set back by 2 d 0 h to "},
		} {
			s.sim.Step(step.by)
			s.awake(lifecycle.Tick + time.Second)
			got := s.records(audit.ClockJumped)
			if len(got) == 0 || !strings.HasPrefix(got[len(got)-1], step.want) {
				t.Errorf("after a step of %v: %q", step.by, got)
			}
		}
		got := s.records(audit.ClockJumped)
		if len(got) != 2 || !strings.Contains(got[0], "which is not believed: ") || !strings.Contains(got[1], "which is believed: ") {
			t.Errorf("records %q", got)
		}
	})
}

func TestAuditKeepsThatADatabaseWasRecovered(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		if got := s.records(audit.StoreRecovered); len(got) != 0 {
			t.Errorf("nothing has happened: %q", got)
		}
		s.must(os.Remove(filepath.Join(s.sim.Dirs().State, "identity.db")))
		s.awake(2 * lifecycle.Tick)
		if got := s.records(audit.StoreRecovered); len(got) != 1 || !strings.Contains(got[0], "identity.db: ") {
			t.Errorf("after the identity was deleted: %q", got)
		}
		s.must(os.Remove(filepath.Join(s.sim.Dirs().State, "cache.db")))
		s.awake(2 * lifecycle.Tick)
		if got := s.records(audit.StoreRecovered); len(got) != 2 || !strings.Contains(got[1], "cache.db: ") {
			t.Errorf("after the cache was deleted: %q", got)
		}
	})
}

// TestAuditSaysThatTheDeviceWasDisconnected: the ring is sealed with a key that
// goes with the identity, so that the new one has to begin with the reason.
func TestAuditSaysThatTheDeviceWasDisconnected(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := newSimulation(t, 1)
		s.awake(5 * time.Minute)
		s.must(s.g.device.Disconnect(context.Background(), true, nil))
		s.records(audit.Disconnected) // whoever reads the audit has what was said so far put into the ring
		s.must(s.g.empty())
		if got := s.records(audit.Disconnected); len(got) != 2 {
			t.Errorf("of two identities: %q", got)
		}
		s.stop()
		s.start()
		if got := s.records(audit.Disconnected); len(got) != 2 {
			t.Errorf("after a restart: %q", got)
		}
	})
}
