package main

import (
	"context"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// contactEvery is how stale the stored contact may become: one small write an hour.
const contactEvery = time.Hour

// restoreContact takes in what an earlier process knew of the authority.
func (g *graph) restoreContact() {
	c := g.cache.Contact()
	g.saved = c
	g.contact.Restore(c.LastContact, lifecycle.Failure{At: c.LastFailure, Reason: c.FailureReason})
}

// end is close, with what is known of authority and clock: the next process of
// this boot must not wait for a contact that this one had.
func (g *graph) end() error {
	if _, enrolled := g.device.Enrolment(); enrolled {
		g.stageContact() // the audit's last commit, in close, takes it along
	}
	return g.close()
}

// stageContact puts what is known now before the next commit of the cache; it
// reports whether that is worth a commit of its own.
func (g *graph) stageContact() (due bool) {
	now := g.clock.Now()
	failure, anchor := g.contact.LastFailure(), g.clock.Anchor()
	next := store.ContactRecord{
		LastContact: g.contact.LastContact(now), LastFailure: failure.At, FailureReason: failure.Reason,
		ClockWall: anchor.Wall, ClockBoot: anchor.Boot, ClockBootID: anchor.BootID,
	}
	if failure.Class != 0 {
		next.FailureClass = failure.Class.String()
	}
	if next == g.saved || next.LastContact.IsZero() && anchor.Wall.IsZero() {
		return false
	}
	due = next.LastContact.Sub(g.saved.LastContact).Abs() >= contactEvery || next.ClockBootID != g.saved.ClockBootID
	g.cache.Stage(store.Change{Contact: &next})
	if due {
		g.saved = next
	}
	return due
}

// keepContact writes the contact when it is due.
func (g *graph) keepContact(ctx context.Context) {
	if g.stageContact() {
		if err := g.cache.Commit(ctx); err != nil {
			g.log.Debug("contact is not stored yet", "reason", err) // the cache says so in status
		}
	}
}
