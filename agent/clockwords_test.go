package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/agent/control"
	"postern/agent/token"
)

// TestWrongClockIsOneSentenceWithACommand: what a person meets on a board
// whose clock stands in 1970, or far ahead, before anybody could put it right.
func TestWrongClockIsOneSentenceWithACommand(t *testing.T) {
	for _, row := range []struct {
		wall time.Time
		want string // the cause
	}{
		{time.Date(1970, 1, 1, 0, 0, 20, 0, time.UTC), `the clock says 1970-01-01 00:0\d:\d\d: before 2000-01-\d\d \d\d:\d\d, which has passed`},
		{time.Date(2099, 6, 1, 12, 0, 0, 0, time.UTC), `the clock says 2099-06-01 12:0\d:\d\d: not synchronised, and the authority has not confirmed it`},
	} {
		simulate(t, func(t *testing.T) {
			s := newSimulation(t, 1)
			s.awake(5 * time.Minute)
			s.link.set("refused")
			s.cut()
			s.boot(time.Hour, row.wall, false)
			s.awake(time.Minute)
			page := strings.Join(statusLines(s.g.Status(), false), "\n") + "\n"
			if want := regexp.MustCompile(`(?m)^○ ClockUntrusted .*(\n.*)*^problem: ` + row.want + "\nfix: postern check --only clock-trusted\n$"); !want.MatchString(page) {
				s.wrong("status says\n%s\nwant %s", page, want)
			}
			_, err := s.g.Token(context.Background(), control.TokenRequest{Resource: "https://never.example"}, token.Caller{Peer: "uid:0"})
			f := control.AsFault(err)
			if want := regexp.MustCompile(`^token: ClockUntrusted: ` + row.want + `$`); f == nil || !want.MatchString(f.Message) || f.Fix != "postern check --only clock-trusted" || f.Exit != control.ExitOffline {
				s.wrong("token says %+v, want %s", f, want)
			}
			if said := s.said("agent: ready event=ready state=ClockUntrusted"); said != 1 {
				s.wrong("run said %d times that it is ready in this state", said)
			}
		})
	}
}
