package main

import (
	"bytes"
	"strings"
	"testing"

	"postern/agent/config"
)

func TestJournalLearnsTheSeverityOfEachLine(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "8:1234")
	for _, form := range []string{"logfmt", "json"} {
		var out bytes.Buffer
		log := newLog(config.Config{Log: form, LogLevel: "debug"}, &out, strings.ToUpper)
		log.Error("one")
		log.Warn("two")
		log.With("key", "value").Info("three")
		log.Debug("four")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		for i, want := range []string{"<3>", "<4>", "<6>", "<7>"} {
			if i >= len(lines) || !strings.HasPrefix(lines[i], want) || strings.Contains(lines[i], "time") {
				t.Errorf("%s: line %d of %q, want it to begin with %s and to hold no time", form, i, lines, want)
			}
		}
	}
}

func TestLogHasNoSeverityWithoutAJournal(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	var out bytes.Buffer
	newLog(config.Config{Log: "logfmt", LogLevel: "info"}, &out, strings.ToUpper).Error("one", "fix", "two")
	if !strings.HasPrefix(out.String(), "time=") {
		t.Errorf("the line is %q, want it to begin with the time", out.String())
	}
	if !strings.Contains(out.String(), "fix=TWO") {
		t.Errorf("the command in %q was not completed", out.String())
	}
}
