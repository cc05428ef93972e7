package main

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"postern/agent/verb"
)

func eachVerb(visit func(*verb.Command)) {
	c := &cli{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	for _, cmd := range allCommands(c.root()) {
		visit(cmd)
	}
}

// TestNoSecretHasAFlagOfItsOwn: what stands on a command line stands in ps. A
// secret comes from a file, which --x-file names.
func TestNoSecretHasAFlagOfItsOwn(t *testing.T) {
	secret := regexp.MustCompile(`(^|-)(secret|claim|password|key|credential|token|pin|bearer)s?(-|$)`)
	name := regexp.MustCompile(`(?m)^ +(?:-\w, )?--([\w-]+)`)
	harmless := map[string]bool{"token-life": true, "tokens": true} // a duration; link or mount
	flags := 0
	eachVerb(func(cmd *verb.Command) {
		for _, found := range name.FindAllStringSubmatch(cmd.Flags().FlagUsages(), -1) {
			flags++
			if f := found[1]; secret.MatchString(f) && !strings.HasSuffix(f, "-file") && !harmless[f] {
				t.Errorf("%s --%s could hold a secret", cmd.CommandPath(), f)
			}
		}
		// The KEY of status names a line of its document.
		for _, argument := range strings.Fields(cmd.Use)[1:] {
			if cmd.Name() != "status" && secret.MatchString(strings.ToLower(strings.Trim(argument, "[]"))) {
				t.Errorf("%q takes a secret as its argument", cmd.Use)
			}
		}
	})
	if flags < 40 {
		t.Errorf("only %d flags were looked at", flags)
	}
}

// TestEachVerbHelps: a sentence, a usage line, two examples and exit codes.
func TestEachVerbHelps(t *testing.T) {
	eachVerb(func(cmd *verb.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd == cmd.Root() {
			return
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: the short sentence is %q", cmd.CommandPath(), cmd.Short)
		}
		if cmd.HasSubCommands() {
			return // lists its verbs
		}
		if !strings.Contains(cmd.Long, "\n\nExit codes: 0") || cmd.Example == "" || !strings.HasPrefix(cmd.Example, "  ") {
			t.Errorf("%s: long %q, example %q", cmd.CommandPath(), cmd.Long, cmd.Example)
		}
		examples := strings.Split(cmd.Example, "\n")
		if len(examples) < 2 {
			t.Errorf("%s: one example, want two: %q", cmd.CommandPath(), cmd.Example)
		}
		for _, line := range examples {
			if !strings.Contains(line, cmd.CommandPath()) || strings.Contains(line, "…") {
				t.Errorf("%s: not to be pasted: %q", cmd.CommandPath(), line)
			}
		}
	})
}
