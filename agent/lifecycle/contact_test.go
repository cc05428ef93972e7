package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent/lifecycle"
)

var errDown = &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "stepca: rekey", Reason: "connection refused"}

func TestContactIsCountedOnTheBootClock(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	age := func(what string, want time.Duration) {
		t.Helper()
		now := c.Now()
		if got := now.Wall.Sub(contact.LastContact(now)); got != want {
			t.Errorf("%s: contact is %s old, want %s", what, got, want)
		}
	}
	if last := contact.LastContact(c.Now()); !last.IsZero() {
		t.Fatalf("never heard, but last contact is %s", last)
	}
	contact.Seen(c.Now())
	age("just now", 0)
	d.pass(10 * time.Minute)
	age("ten minutes on", 10*time.Minute)
	d.step(-20 * day)
	age("wall clock set back", 10*time.Minute)
	d.step(40 * day)
	age("wall clock set ahead", 10*time.Minute)
}

func TestAStoredContactCountsUntilANewOneUnlessItLiesInTheFuture(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	failure := lifecycle.Failure{At: born.Add(-hour), Class: lifecycle.ClassTransient, Reason: "no route"}
	contact.Restore(born.Add(-2*hour), failure)
	if got := contact.LastContact(c.Now()); !got.Equal(born.Add(-2*hour)) || contact.Unproven(c.Now()) {
		t.Errorf("last contact %s, unproven %t", got, contact.Unproven(c.Now()))
	}
	if got := contact.LastFailure(); got != failure {
		t.Errorf("last failure %+v", got)
	}
	d.setWall(born.Add(-3 * hour))
	if got := contact.LastContact(c.Now()); !got.IsZero() || !contact.Unproven(c.Now()) {
		t.Errorf("a contact in the future, %s, is believed, or taken for none", got)
	}
	contact.Seen(c.Now())
	contact.Restore(born.AddDate(1, 0, 0), lifecycle.Failure{})
	if got := contact.LastContact(c.Now()); !got.Equal(c.Now().Wall) || contact.Unproven(c.Now()) {
		t.Errorf("last contact %s, want now", got)
	}
}

func TestContactIsRegainedOnceAfterAnOutage(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	if out := contact.Seen(c.Now()); out != 0 {
		t.Errorf("first contact ended an outage of %s", out)
	}
	regained := contact.Regained()
	d.pass(5 * time.Minute)
	if out := contact.Seen(c.Now()); out != 0 || closed(regained) {
		t.Errorf("a heartbeat ended an outage of %s", out)
	}
	for range 3 {
		d.pass(time.Minute)
		contact.Failed(c.Now(), errDown)
	}
	if contact.Failures() != 3 || closed(regained) {
		t.Errorf("%d failures, regained %v", contact.Failures(), closed(regained))
	}
	d.pass(27 * time.Minute)
	if out := contact.Seen(c.Now()); out != 30*time.Minute || contact.Outage() != out {
		t.Errorf("outage of %s, remembered %s, want 30m", out, contact.Outage())
	}
	if !closed(regained) || contact.Failures() != 0 {
		t.Error("those who wait were not told, or the failures stand")
	}
	if closed(contact.Regained()) {
		t.Error("the next one is told at once")
	}
	if out := contact.Seen(c.Now()); out != 0 {
		t.Errorf("the second contact ended an outage of %s too", out)
	}
}

// A power cut in a whole region: all devices come back at once, without one
// failure of their own.
func TestAStoredContactThatIsOldMakesTheFirstOneAnOutage(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	contact.Restore(born.Add(-day), lifecycle.Failure{})
	if out := contact.Seen(c.Now()); out != day {
		t.Errorf("outage of %s, want %s", out, day)
	}
}

func TestAnOutageFromTheStartIsCountedFromTheFirstFailure(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	contact.Failed(c.Now(), errDown)
	d.pass(hour)
	contact.Failed(c.Now(), errDown)
	d.pass(hour)
	if out := contact.Seen(c.Now()); out != 2*hour {
		t.Errorf("outage of %s, want 2h", out)
	}
}

func TestAnAnswerThatRefusesIsContact(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	contact.Failed(c.Now(), errDown)
	d.pass(time.Minute)
	refusal := fmt.Errorf("token: %w", &lifecycle.Error{Class: lifecycle.ClassDenied, Op: "oauth: token", Code: "access_denied", Answered: true})
	if out := contact.Failed(c.Now(), refusal); out != time.Minute {
		t.Errorf("outage of %s, want 1m", out)
	}
	now := c.Now()
	if got := contact.LastContact(now); !got.Equal(now.Wall) {
		t.Errorf("last contact %s, want now", got)
	}
	if f := contact.LastFailure(); f.Class != lifecycle.ClassDenied || !f.At.Equal(now.Wall) || f.Reason != "token: oauth: token: access_denied" {
		t.Errorf("last failure %+v", f)
	}
}

func TestACallerThatHangsUpIsNoNews(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	contact.Failed(c.Now(), nil)
	contact.Failed(c.Now(), fmt.Errorf("oauth: token: %w", context.Canceled))
	if contact.Failures() != 0 || !contact.LastFailure().At.IsZero() {
		t.Errorf("%d failures, last %+v", contact.Failures(), contact.LastFailure())
	}
	contact.Failed(c.Now(), context.DeadlineExceeded)
	if contact.Failures() != 1 {
		t.Error("a deadline is a failure")
	}
}

func TestTheReasonOfAFailureIsOnePrintableLine(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	for _, row := range []struct{ in, want string }{
		{"denied\r\nlevel=info msg=forged", "denied  level=info msg=forged"},
		{"a\x00b\x1b[31mc\x7f\u2028\u009bd", "a b [31mc   d"},
		{"broken \xff utf8", "broken ? utf8"},
		{strings.Repeat("x", 255) + "é and more", strings.Repeat("x", 255)},
	} {
		contact.Failed(c.Now(), errors.New(row.in))
		if got := contact.LastFailure().Reason; got != row.want {
			t.Errorf("%q became %q, want %q", row.in, got, row.want)
		}
	}
}

func TestContactIsSafeForConcurrentUse(t *testing.T) {
	d := newDevice(born)
	c, contact := d.clock(), &lifecycle.Contact{}
	now := c.Now()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				contact.Failed(now, errDown)
				contact.Seen(now)
				contact.Restore(born, lifecycle.Failure{})
				_, _, _, _ = contact.LastContact(now), contact.LastFailure(), contact.Outage(), contact.Failures()
				_ = contact.Regained()
			}
		})
	}
	all.Wait()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
