package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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
	return eachCommand(fix, func(command string) string {
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

// eachCommand replaces the calls of postern in a line, each up to what ends a
// command in a shell.
func eachCommand(line string, by func(command string) string) string {
	var done strings.Builder
	for {
		start, end := nextCommand(line)
		if start < 0 {
			done.WriteString(line)
			return done.String()
		}
		done.WriteString(line[:start] + by(line[start:end]))
		line = line[end:]
	}
}

// nextCommand is where the first call of postern in a line begins, with the
// sudo before it, and where it ends; -1 if there is none.
func nextCommand(line string) (start, end int) {
	const call = "postern "
	for from := 0; ; {
		i := strings.Index(line[from:], call)
		if i < 0 {
			return -1, 0
		}
		i += from
		from = i + len(call)
		word := from < len(line) && isLower(line[from]) || strings.HasPrefix(line[from:], "--help")
		if !word || i > 0 && madeOf(line[i-1:i], letters+"_") {
			continue // part of a name, or no verb follows
		}
		for end = from; end < len(line); end++ {
			bar := line[end] == '|' && end+1 < len(line) && isLower(line[end+1]) // an alternative: on|off
			if strings.IndexByte(";|&#(),", line[end]) >= 0 && !bar {
				break
			}
		}
		return i - len("sudo ")*strings.Count(line[max(0, i-len("sudo ")):i], "sudo "), end
	}
}

func isLower(b byte) bool { return 'a' <= b && b <= 'z' }

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// madeOf reports whether all of s is in the set.
func madeOf(s, set string) bool { return strings.Trim(s, set) == "" }

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

// quoted is s as one word for a shell.
func quoted(s string) string {
	if s != "" && madeOf(s, letters+"_./:=@%+,-") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
