package credential

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// cutter pulls the plug at the n-th point of a scenario. Points are: before
// and after each commit of the file, each opening for writing (database, its
// backup copy, the key), each write of the marker, and before and after the
// effect of each call to the authority. What the disk holds then is copied; what the device does
// afterwards never happened: the authority does not hear it.
type cutter struct {
	t      *testing.T
	ca     *authority
	dir    string
	mu     sync.Mutex
	armed  bool
	at, n  int
	name   string
	copied string
}

func (c *cutter) point(name string) (dead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed {
		return false
	}
	if c.copied != "" {
		return true
	}
	if c.n++; c.n-1 == c.at {
		c.name, c.copied = name, copyDir(c.t, c.dir)
		return true
	}
	return false
}

func (c *cutter) arm() { c.mu.Lock(); defer c.mu.Unlock(); c.armed = true }

func (c *cutter) writeFile(path string, content []byte) error {
	c.point("before " + filepath.Base(path))
	temp := path + ".tmp"
	err := errors.Join(os.WriteFile(temp, content, 0o600), os.Rename(temp, path))
	c.point("after " + filepath.Base(path))
	return err
}

func (c *cutter) openFile(path string, flag int) (*os.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		c.point("before opening " + filepath.Base(path))
	}
	return os.OpenFile(path, flag, 0o600) //nolint:gosec // a test's own directory
}

// cuts runs a scenario once for each of its points: prepare, then act with the
// plug pulled somewhere, then the world is switched on again with what was on
// the disk, and check looks at it.
func cuts(t *testing.T, prepare, act, check func(t *testing.T, w *world)) {
	var names []string
	for at := 0; ; at++ {
		done := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			c := &cutter{t: t, ca: w.ca, dir: w.dir, at: at}
			w.store.WriteFile, w.store.OpenFile = c.writeFile, c.openFile
			w.wrap = func(f identityFile) identityFile {
				return &meddled{
					identityFile: f,
					before:       func() error { c.point("before commit"); return nil },
					after:        func() error { c.point("after commit"); return nil },
				}
			}
			w.ca.fail = func(call string) error { return deadLine(c.point("before " + call)) }
			w.ca.lose = func(call string) error { return deadLine(c.point("after " + call)) }
			w.on()
			prepare(t, w)
			c.arm()
			act(t, w)
			w.off()
			if c.copied == "" {
				done = true
				return
			}
			names = append(names, c.name)
			w.dir, w.wrap, w.store = c.copied, nil, store.Options{}
			w.ca.set(func(a *authority) { a.fail, a.lose = nil, nil })
			w.board.set(func(b *board) { b.boots++; b.booted = time.Now() })
			w.on()
			defer w.off()
			defer func() {
				if t.Failed() {
					t.Logf("the plug was pulled %s (point %d)\n%s", c.name, at, w.tail())
				}
			}()
			check(t, w)
		})
		if done || t.Failed() {
			break
		}
	}
	t.Logf("%d cuts: %s", len(names), strings.Join(names, ", "))
	if !t.Failed() && len(names) < 7 {
		t.Errorf("only %d cuts: the scenario has lost its points", len(names))
	}
}

func deadLine(dead bool) error {
	if dead {
		return errDown
	}
	return nil
}

// usable asserts that an identity works: connected, and its credential earns a token.
func usable(t *testing.T, w *world, id string) {
	t.Helper()
	w.wait(2 * time.Minute)
	w.expect(id, lifecycle.Connected)
	if err := w.token(id); err != nil {
		t.Fatalf("%s: the credential does not work: %v", id, err)
	}
}

func TestCutAtAnyStepOfARenewalLeavesAUsableCredential(t *testing.T) {
	cuts(t, func(t *testing.T, w *world) {
		w.connect()
		w.wait(time.Minute)
		must(t, w.token(systemID))
		w.wait(time.Minute)
	}, func(t *testing.T, w *world) {
		_ = w.Renew(context.Background(), systemID, nil)
		w.wait(time.Minute)
		_ = w.token(systemID)
		w.wait(2 * time.Minute) // proof, withdrawal, their facts
	}, func(t *testing.T, w *world) {
		usable(t, w, systemID)
		w.wait(2 * time.Minute)
		if n := len(w.ca.keys); n > 2 {
			t.Errorf("%d keys were used", n)
		}
		must(t, w.Renew(context.Background(), systemID, nil))
		usable(t, w, systemID)
		w.wait(2 * time.Minute)
		usable(t, w, systemID)
	})
}

func TestCutAtAnyStepOfConnectLeavesADeviceThatConnects(t *testing.T) {
	cuts(t, func(*testing.T, *world) {}, func(t *testing.T, w *world) {
		w.ca.assign(userIdentity(userID, "telemetry"))
		_, _ = w.Connect(context.Background(), w.onboarding(systemIdentity()))
		w.wait(6 * time.Minute)
	}, func(t *testing.T, w *world) {
		if st, _ := w.System(); st.State == lifecycle.Damaged {
			t.Fatalf("half made: %s", st.Reason)
		} else if st.State == lifecycle.Unenrolled {
			w.connect()
		}
		usable(t, w, systemID)
		w.wait(6 * time.Minute)
		if st, ok := w.Standing(userID); !ok || st.State == lifecycle.Unenrolled {
			// The answer to its enrolment was lost: only the operator can offer another.
			w.ca.assign(userIdentity(userID, "telemetry"))
			w.wait(6 * time.Minute)
		}
		usable(t, w, userID)
	})
}

func TestCutAtAnyStepOfReconnectLeavesADeviceThatReconnects(t *testing.T) {
	cuts(t, func(t *testing.T, w *world) {
		w.connect()
		w.wait(time.Minute)
		must(t, w.Expose("readable by uid 1001"))
	}, func(t *testing.T, w *world) {
		_, _ = w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		w.wait(3 * time.Minute)
	}, func(t *testing.T, w *world) {
		if st := w.standing(systemID); st.Exposed != "" {
			if _, err := w.Reconnect(context.Background(), w.onboarding(systemIdentity())); err != nil {
				t.Fatal(err)
			}
		}
		usable(t, w, systemID)
		if got := w.standing(systemID).Identity; got != systemIdentity() {
			t.Errorf("another identity: %+v", got)
		}
	})
}

func TestCutAtAnyStepOfDisconnectLeavesAllOrNothing(t *testing.T) {
	cuts(t, func(t *testing.T, w *world) {
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		w.wait(time.Minute)
	}, func(t *testing.T, w *world) {
		_ = w.Disconnect(context.Background(), false, nil)
	}, func(t *testing.T, w *world) {
		st, ok := w.System()
		switch {
		case st.State == lifecycle.Damaged:
			t.Fatalf("half an identity: %s", st.Reason)
		case ok:
			must(t, w.Disconnect(context.Background(), false, nil))
		}
		if got := w.List(); len(got) != 0 {
			t.Fatalf("left: %+v", got)
		}
		w.connect()
		usable(t, w, systemID)
	})
}

func TestCutAtAnyStepOfAnUnassignmentOrAnEnrolmentHeals(t *testing.T) {
	cuts(t, func(t *testing.T, w *world) {
		w.ca.assign(userIdentity(userID, "telemetry"))
		w.connect()
		w.wait(time.Minute)
	}, func(t *testing.T, w *world) {
		w.ca.unassign(userID)
		w.ca.assign(userIdentity(otherID, "backup"))
		w.wait(6 * time.Minute)
	}, func(t *testing.T, w *world) {
		w.wait(6 * time.Minute)
		usable(t, w, systemID)
		if _, ok := w.Standing(userID); ok {
			t.Error("the unassigned identity is still here")
		}
		if st, ok := w.Standing(otherID); !ok || st.State == lifecycle.Unenrolled {
			w.ca.assign(userIdentity(otherID, "backup"))
			w.wait(6 * time.Minute)
		}
		usable(t, w, otherID)
	})
}
