package config

import (
	"fmt"
	"sort"
	"strings"
)

// Override is one setting from the command line. It wins over the file.
type Override struct {
	Key   string // as in the file: "log_level", "arc.listen"; not one of a repeated table
	Value string // as a person types it; lists are separated by commas
	Flag  string // where it came from, for errors and `config print`: "--log-level"
}

// Load reads and validates the configuration. An empty path means that there
// is no file: the defaults and the overrides. read returns the content of
// path, having refused a file that others could write; it is called once, and
// its error is wrapped, so that a caller can ask for fs.ErrNotExist. Every
// other error is a Problems.
func Load(path string, read func(path string) ([]byte, error), overrides ...Override) (Config, error) {
	c := defaults()
	var l loader
	if path != "" {
		data, err := read(path)
		if err != nil {
			return Config{}, fmt.Errorf("config: %w", err)
		}
		c.path = path
		l.file(&c, path, data)
	}
	for _, o := range overrides {
		l.override(&c, o)
	}
	l.check(&c)
	if len(l.problems) > 0 {
		sort.SliceStable(l.problems, func(i, j int) bool { return l.problems[i].Line < l.problems[j].Line })
		return Config{}, l.problems
	}
	return c, nil
}

// Error is one thing that is wrong, with its place and its cure.
type Error struct {
	Path    string // of the file; empty for a flag
	Line    int    // from 1; 0 if it has none
	Flag    string // the flag, if the value came from one
	Key     string // "arc.listen"; empty if the file as a whole is meant
	Problem string
	Fix     string // what to do, a phrase that begins with a verb; may be empty
}

// Error returns one sentence: place, key, problem, cure.
func (e *Error) Error() string {
	var s strings.Builder
	switch {
	case e.Flag != "":
		s.WriteString(e.Flag + ": ")
	case e.Line > 0:
		fmt.Fprintf(&s, "%s:%d: ", e.Path, e.Line)
	case e.Path != "":
		s.WriteString(e.Path + ": ")
	}
	if e.Key != "" {
		s.WriteString(e.Key + ": ")
	}
	s.WriteString(e.Problem)
	if e.Fix != "" {
		s.WriteString("; " + e.Fix)
	}
	return s.String()
}

// Problems is everything that is wrong with a configuration, by line. It is
// never empty as an error.
type Problems []*Error

// Error returns one line a problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, e := range p {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors, for errors.As.
func (p Problems) Unwrap() []error {
	errs := make([]error, len(p))
	for i, e := range p {
		errs[i] = e
	}
	return errs
}

// Origin says where a value came from. The zero value is the built-in default.
type Origin struct {
	Line int    // of the file, from 1
	Flag string // on the command line
}

// String returns "default", "line 12" or the flag.
func (o Origin) String() string {
	switch {
	case o.Flag != "":
		return o.Flag
	case o.Line > 0:
		return fmt.Sprintf("line %d", o.Line)
	}
	return "default"
}
