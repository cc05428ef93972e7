package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"postern/agent/control"
	"postern/agent/lifecycle"
)

// plain reports whether colour must not be used on w.
func plain(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return true
	}
	info, err := f.Stat()
	return err != nil || info.Mode()&os.ModeCharDevice == 0
}

// glyph stands beside the state's word; colour never carries meaning alone.
func glyph(s lifecycle.State, colour bool) string {
	g, code := "✗", "31"
	switch s {
	case lifecycle.Connected:
		g, code = "●", "32"
	case lifecycle.Offline, lifecycle.ClockUntrusted:
		g, code = "○", "33"
	case lifecycle.Unenrolled:
		g, code = "-", "0"
	}
	if !colour {
		return g
	}
	return "\x1b[" + code + "m" + g + "\x1b[0m"
}

// statusLines is the page of `postern status`; the first line is enough for a glance.
func statusLines(st control.Status, colour bool) []string {
	head := fmt.Sprintf("%s %s", glyph(st.State, colour), st.Word())
	if st.Insecure() {
		head = fmt.Sprintf("%s %s", glyph(lifecycle.Damaged, colour), st.Word())
	}
	if st.Name != "" {
		head += "   " + st.Name
	}
	if !st.Until.IsZero() {
		head += fmt.Sprintf("   until %s even without network (%s)", st.Until.Format(time.DateOnly), span(st.Until.Sub(st.Now)))
	}
	lines := []string{head}
	add := func(label, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			lines = append(lines, fmt.Sprintf("  %-12s %s", label, text))
		}
	}
	if st.Mode == "dev" {
		add("mode", "dev: a site authority on loopback, for trying things out; not for production")
	}
	add("identity", "%s", identityLine(st))
	for _, id := range st.Identities {
		add("certificate", "%s", certificateLine(id, st.Now))
	}
	if st.Authority.URL != "" {
		add("authority", "%s   last contact %s", st.Authority.URL, contactText(st))
	}
	if st.Authority.Failure != "" && st.Authority.LastFailure.After(st.Authority.LastContact) {
		add("", "last try %s: %s", ago(st.Now, st.Authority.LastFailure), st.Authority.Failure)
	}
	add("tokens", "%s", tokensLine(st))
	for _, caller := range st.Callers[:min(1, len(st.Callers))] {
		add("last asked", "%s  %s  %s  %s", caller.Time.Local().Format(time.TimeOnly), who(caller), caller.Resource, caller.Agent)
	}
	add("clock", "%s (%s) · floor %s", trusted(st.Clock.Trusted), st.Clock.Reason, known(st.Clock.Floor))
	add("store", "%s · %s written today · key protection: %s", bytesText(st.Store.Bytes), bytesText(st.Store.WrittenBytes), st.Store.Protection)
	add("endpoint", "%s", endpointLine(st.Endpoint))
	add("sandbox", "%s", st.Sandbox)
	add("warnings", "%s", strings.Join(orNone(st.Warnings), "; "))
	if st.Problem != "" {
		lines = append(lines, "problem: "+st.Problem)
	}
	if st.Fix != "" {
		lines = append(lines, "fix: "+st.Fix)
	}
	return lines
}

func identityLine(st control.Status) string {
	var system, more string
	users := 0
	for _, id := range st.Identities {
		if id.Kind == "UserAssigned" {
			users++
			continue
		}
		system = fmt.Sprintf("system-assigned %s  tenant %s", short(id.ClientID), short(id.TenantID))
	}
	if users > 0 {
		more = fmt.Sprintf("   + %d user-assigned", users)
	}
	if system+more == "" {
		return "none"
	}
	return strings.TrimSpace(system + more)
}

func certificateLine(id control.Identity, now time.Time) string {
	if id.NotAfter.IsZero() {
		return fmt.Sprintf("%s: %s", id.Name, id.State)
	}
	life, left := id.NotAfter.Sub(id.NotBefore), id.NotAfter.Sub(now)
	text := fmt.Sprintf("%s %s  %s · ", bar(left, life), id.Name, leftText(left, life))
	if !id.RenewAt.IsZero() {
		text += "renews from " + id.RenewAt.Format(time.DateOnly) + " · "
	}
	text += "key: " + id.Key
	if id.Exposed != "" {
		text += "exposed, to be rotated"
	}
	if id.State != lifecycle.Connected {
		text += " · " + id.State.String()
	}
	if id.LastError != "" {
		text += " · last try: " + id.LastError
	}
	return text
}

func leftText(left, life time.Duration) string {
	if left <= 0 {
		return "over since " + span(left)
	}
	return fmt.Sprintf("%s of %s left", span(left), span(life))
}

// bar draws the remaining life in 22 cells.
func bar(left, life time.Duration) string {
	const cells = 22
	full := 0
	if life > 0 && left > 0 {
		full = min(cells, int(cells*left/life))
	}
	return strings.Repeat("█", full) + strings.Repeat("░", cells-full)
}

// contactText is not "never" when an earlier process knew better.
func contactText(st control.Status) string {
	if st.Authority.Undated {
		return "before this start, at a time that is not known"
	}
	return ago(st.Now, st.Authority.LastContact)
}

func tokensLine(st control.Status) string {
	text := fmt.Sprintf("%d cached", st.Tokens.Cached)
	if st.Tokens.Held > 0 {
		text += fmt.Sprintf(" · %d held back until the clock is right", st.Tokens.Held)
	}
	if !st.Tokens.Soonest.IsZero() {
		text += " · soonest expiry " + span(st.Tokens.Soonest.Sub(st.Now))
	}
	return text + fmt.Sprintf(" · %d from cache, %d fetched since start", st.Tokens.Hits, st.Tokens.Fetched)
}

func endpointLine(e control.Endpoint) string {
	var parts []string
	if len(e.Arc) > 0 {
		parts = append(parts, "arc "+strings.Join(e.Arc, ", "))
	}
	if len(e.IMDS) > 0 {
		parts = append(parts, "imds "+strings.Join(e.IMDS, ", "))
	}
	if len(e.Workloads) > 0 {
		parts = append(parts, "app service "+strings.Join(e.Workloads, ", "))
	}
	return strings.Join(parts, " · ")
}

func who(caller control.LastCaller) string {
	if caller.User == "" {
		return caller.Peer
	}
	return fmt.Sprintf("%s (%s)", caller.Peer, caller.User)
}

// known is the day of t, where there is one.
func known(t time.Time) string {
	if t.IsZero() {
		return "not known yet"
	}
	return t.Format(time.DateOnly)
}

func trusted(yes bool) string {
	if yes {
		return "trusted"
	}
	return "not trusted"
}

func orNone(list []string) []string {
	if len(list) == 0 {
		return []string{"none"}
	}
	return list
}

func short(id string) string {
	if len(id) > 8 {
		return id[:8] + "…"
	}
	return id
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d kB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
