package main

import "fmt"

// verdict is how a check ended, as it stands in JSON.
type verdict string

const (
	passed  verdict = "ok"
	warning verdict = "warning"
	failed  verdict = "error"
	skipped verdict = "skipped"
)

func (v verdict) glyph() string {
	switch v {
	case passed:
		return "✓"
	case warning:
		return "!"
	case failed:
		return "✗"
	case skipped:
	}
	return "-"
}

// finding is the answer of one check. fix is a command; only ok has none.
type finding struct {
	verdict   verdict
	text, fix string
	chain     []string // causes, for --verbose
}

func ok(format string, args ...any) finding {
	return finding{verdict: passed, text: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) finding {
	return finding{verdict: warning, text: fmt.Sprintf(format, args...), fix: fix}
}

func bad(fix, format string, args ...any) finding {
	return finding{verdict: failed, text: fmt.Sprintf(format, args...), fix: fix}
}

func skip(fix, format string, args ...any) finding {
	return finding{verdict: skipped, text: fmt.Sprintf(format, args...), fix: fix}
}

func (f finding) because(chain []string) finding {
	f.chain = chain
	return f
}

// checkReport is the document of check --json, schema postern.check/1.
type checkReport struct {
	Schema   string      `json:"schema"`
	OK       int         `json:"ok"`
	Warnings int         `json:"warnings"`
	Errors   int         `json:"errors"`
	Skipped  int         `json:"skipped"`
	Checks   []checkLine `json:"checks"`
}

type checkLine struct {
	ID      string   `json:"id"`
	Section string   `json:"section"`
	Status  verdict  `json:"status"`
	Message string   `json:"message"`
	Fix     string   `json:"fix,omitempty"`
	Chain   []string `json:"chain,omitempty"`
}

func (r *checkReport) add(line checkLine) {
	switch line.Status {
	case passed:
		r.OK++
	case warning:
		r.Warnings++
	case failed:
		r.Errors++
	case skipped:
		r.Skipped++
	}
	r.Checks = append(r.Checks, line)
}

// showCheck prints the newest line of r, under its section's name if it is the
// first of it.
func (c *cli) showCheck(r checkReport, line checkLine) {
	if n := len(r.Checks); n == 1 || r.Checks[n-2].Section != line.Section {
		c.print("%s", line.Section)
	}
	c.print("  %s %-22s %s", line.Status.glyph(), line.ID, line.Message)
	if line.Fix != "" {
		c.print("    fix: %s", line.Fix)
	}
	if c.verbose {
		for _, cause := range line.Chain {
			c.print("    because: %s", cause)
		}
	}
}
