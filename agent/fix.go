package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"postern/agent/control"
)

// complete makes the command of a fix line, or of a next line, one that can be
// pasted: with the directories and the configuration that this invocation was
// given, and with the invocation itself where that is to be repeated.
func (c *cli) complete(fix string) string {
	if self := c.self(); self != "postern" && strings.HasPrefix(fix, self+" ") {
		return fix // it is the invocation
	}
	switch rest, again := strings.CutPrefix(fix, control.AgainWithSudo); {
	case again:
		line := "sudo " + c.invocation()
		if file := os.Getenv("POSTERN_CONFIG"); c.config == "" && file != "" {
			line += " --config " + quoted(file) // sudo leaves the variable behind
		}
		return line + rest
	case strings.HasPrefix(fix, control.AgainWithYes):
		return c.invocation() + " --yes" + strings.TrimPrefix(fix, control.AgainWithYes)
	}
	return eachCommand.ReplaceAllStringFunc(fix, func(command string) string {
		text := strings.TrimRight(command, " ")
		return strings.Replace(text, "postern", c.self(), 1) + c.given(text) + command[len(text):]
	})
}

// self is this program as a shell finds it: by its name where that is in the
// path, else as it was called.
func (c *cli) self() string {
	switch {
	case strings.Contains(c.called, "go-build"):
		return "go run ./agent"
	case !strings.ContainsRune(c.called, filepath.Separator) || inPath("postern", c.called):
		return "postern"
	}
	return quoted(c.called)
}

// inPath reports whether a shell would take path for name.
func inPath(name, path string) bool {
	found, err := exec.LookPath(name)
	return err == nil && sameFile(found, path)
}

// completeAll does so for the commands in a status.
func (c *cli) completeAll(st *control.Status) {
	st.Fix = c.complete(st.Fix)
	for i := range st.Identities {
		st.Identities[i].Fix = c.complete(st.Identities[i].Fix)
	}
}

// eachCommand finds the calls of postern in a line, each up to what ends a
// command in a shell.
var eachCommand = regexp.MustCompile(`(?:sudo )?\bpostern [a-z](?:[^;|&#(),]|\|[a-z])+`)

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// lookInto is the command for an error that nobody has found words for: where
// it happened, else its causes.
func (c *cli) lookInto(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) && filepath.IsAbs(at.Path) {
		there := at.Path
		for _, gone := os.Lstat(there); gone != nil && there != filepath.Dir(there); _, gone = os.Lstat(there) {
			there = filepath.Dir(there)
		}
		switch {
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
			return "df -h " + quoted(there)
		case errors.Is(err, syscall.EROFS):
			return "findmnt -T " + quoted(there)
		}
		return "ls -ld " + quoted(there)
	}
	if c.verbose {
		return c.complete("postern check")
	}
	return c.invocation() + " --verbose   # shows the causes"
}

// given are the flags of this invocation that command needs as well.
func (c *cli) given(command string) string {
	for _, alone := range []string{" --help", " --defaults", "postern version", "postern completion"} {
		if strings.Contains(command, alone) {
			return "" // these look at nothing
		}
	}
	var flags strings.Builder
	add := func(name, value string) {
		if value != "" && !strings.Contains(command, name+" ") {
			flags.WriteString(" " + name + " " + quoted(value))
		}
	}
	if strings.Contains(command, "postern authority") {
		if c.authorityDir != nil {
			add("--dir", *c.authorityDir)
		}
		return flags.String() // for other verbs the authority is another machine
	}
	file := c.config
	if file == "" && strings.HasPrefix(command, "sudo ") {
		file = os.Getenv("POSTERN_CONFIG") // sudo leaves it behind
	}
	add("--config", file)
	add("--state-dir", c.stateDir)
	add("--tokens-dir", c.tokensDir)
	add("--runtime-dir", c.runtimeDir)
	return flags.String()
}

// invocation is the command line as it was given; nothing on it is a secret.
func (c *cli) invocation() string {
	words := []string{c.self()}
	for _, a := range c.args {
		words = append(words, quoted(a))
	}
	return strings.Join(words, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`)

// quoted is s as one word for a shell.
func quoted(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
