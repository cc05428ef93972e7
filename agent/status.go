package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) statusVerb() *verb.Command {
	var watch, exit bool
	long, example := manual("Show the identity of this device: its state, how long it lasts without network, and what is wrong.",
		[]string{"postern status", "postern status --json state"}, "0 shown; 3 no agent runs; with --exit-code 4 Unenrolled, 5 Expired, 6 Offline or ClockUntrusted, 9 Rejected, 11 Damaged, 12 Moved")
	cmd := &verb.Command{
		Use: "status [KEY]", Aliases: []string{"show"}, Short: "Show the state of this device's identity", Long: long, Example: example,
		Args: verb.MaximumNArgs(1),
		RunE: func(cmd *verb.Command, args []string) error {
			for {
				st, err := c.status(cmd.Context(), "status")
				if err != nil {
					return err
				}
				c.completeAll(&st)
				if err := c.showStatus(st, args); err != nil {
					return err
				}
				if !watch {
					return exitFor(st, exit)
				}
				if !pause(cmd.Context(), 2*time.Second) {
					return nil
				}
			}
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show again every 2 s until interrupted")
	cmd.Flags().BoolVar(&exit, "exit-code", false, "answer with the state's exit code")
	c.waits(cmd)
	return cmd
}

func exitFor(st control.Status, wanted bool) error {
	if code := st.Exit(); wanted && code != 0 {
		return exitCode(code)
	}
	return nil
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *cli) showStatus(st control.Status, key []string) error {
	if len(key) == 1 {
		return c.showKey(st, key[0])
	}
	if c.json {
		return c.printJSON(st)
	}
	for _, line := range statusLines(st, !c.noColor && !plain(c.stdout)) {
		c.print("%s", line)
	}
	return nil
}

// showKey prints one top-level value of the document, or what stands behind a
// label of the page.
func (c *cli) showKey(st control.Status, key string) error {
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	value, ok := doc[key]
	if !ok && !c.json {
		for _, line := range statusLines(st, false) {
			if text, found := strings.CutPrefix(line, fmt.Sprintf("  %-12s ", key)); found {
				c.print("%s", text)
				ok = true
			}
		}
		if ok {
			return nil
		}
	}
	if !ok {
		return control.NewFault(control.ExitUsage, "unknown-key", "postern status --json", "status: there is no key %q", key)
	}
	var text string
	if !c.json && json.Unmarshal(value, &text) == nil {
		c.print("%s", text)
		return nil
	}
	c.print("%s", value)
	return nil
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(now.Sub(t)) + " ago"
}

// span is a duration as people say it, two units at most.
func span(d time.Duration) string {
	d = max(d, -d)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}
