package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// loader collects what is wrong while a Config is filled.
type loader struct {
	path     string
	lines    map[string]int // of keys and headings, by full name with indices
	problems Problems
}

func (l *loader) report(e Error) { l.problems = append(l.problems, &e) }

// wrong reports a problem of a key of the file. id is its name with indices,
// key the one that people read.
func (l *loader) wrong(id, key string, p *problem) {
	l.report(Error{Path: l.path, Line: l.lines[id], Key: key, Problem: p.what, Fix: p.fix})
}

// file takes in the whole file.
func (l *loader) file(c *Config, path string, data []byte) {
	l.path = path
	if len(data) > MaxSize {
		l.report(Error{Path: path, Problem: fmt.Sprintf("is larger than %d bytes", MaxSize)})
		return
	}
	text := strings.TrimPrefix(string(data), "\ufeff") // which editors on Windows write
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		l.report(Error{Path: path, Line: 1, Problem: "is UTF-16", Fix: "save it as UTF-8"})
		return
	}
	var deep int
	if l.lines, deep = locate(text); deep > 0 {
		l.report(Error{Path: path, Line: deep, Problem: fmt.Sprintf("is nested more than %d deep", maxDepth), Fix: "no key of this file is"})
		return
	}
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		l.report(syntaxError(path, err))
		return
	}
	sections := schema()
	l.table(c, sections, &sections[0], c, "", tree)
	for i := range sections[1:] {
		l.section(c, sections, &sections[i+1], tree)
	}
}

func syntaxError(path string, err error) Error {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return Error{Path: path, Line: max(parse.Position.Line, 1), Problem: cleanSyntax(parse.Message), Fix: "correct the TOML"}
	}
	return Error{Path: path, Line: 1, Problem: cleanSyntax(err.Error()), Fix: "correct the TOML"}
}

// cleanSyntax makes one printable line of the parser's words, which quote the file.
func cleanSyntax(s string) string {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "toml: "), ".")
	quoted := quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// section takes in one named section.
func (l *loader) section(c *Config, sections []section, s *section, tree map[string]any) {
	value, ok := tree[s.name]
	if !ok {
		return
	}
	if !s.repeated() {
		table, ok := value.(map[string]any)
		if !ok {
			l.wrong(s.name, s.name, &problem{"is " + typeName(value), "write it as a table: " + s.heading()})
			return
		}
		l.table(c, sections, s, c, s.name+".", table)
		return
	}
	tables, ok := asTables(value)
	switch {
	case !ok:
		l.wrong(s.name, s.name, &problem{"is " + typeName(value), "write it as a table of a list: " + s.heading()})
		return
	case len(tables) > s.limit:
		l.wrong(s.name, s.name, &problem{fmt.Sprintf("stands there %d times, at most %d are allowed", len(tables), s.limit), ""})
		return
	}
	for i, table := range tables {
		l.element(c, sections, s, i, table)
	}
}

// asTables reads both spellings of an array of tables.
func asTables(value any) ([]map[string]any, bool) {
	switch v := value.(type) {
	case []map[string]any:
		return v, true
	case []any:
		tables := make([]map[string]any, len(v))
		for i := range v {
			table, ok := v[i].(map[string]any)
			if !ok {
				return nil, false
			}
			tables[i] = table
		}
		return tables, true
	}
	return nil, false
}

// element takes in one table of a repeated section.
func (l *loader) element(c *Config, sections []section, s *section, i int, table map[string]any) {
	target := s.add(c)
	id := fmt.Sprintf("%s[%d]", s.name, i)
	for _, f := range s.fields {
		f.reset(target)
		if _, ok := table[f.name]; !ok && f.required {
			l.wrong(id, s.key(f.name), &problem{"is missing", fmt.Sprintf("add it to this %s", s.heading())})
		}
	}
	l.table(c, sections, s, target, id+".", table)
}

// table takes in the keys of one table; prefix is its id with the dot.
func (l *loader) table(c *Config, sections []section, s *section, target any, prefix string, table map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(table)) {
		id := prefix + key
		f := s.find(key)
		if f == nil {
			if s.name != "" || !isSection(sections, key) {
				l.wrong(id, s.key(shown(key)), unknown(sections, s, key))
			}
			continue
		}
		if p := f.set(f.at(target), table[key]); p != nil {
			l.wrong(id, s.key(key), p)
			continue
		}
		c.origin[id] = Origin{Line: l.lines[id]}
	}
}

func (s *section) find(key string) *field {
	for i := range s.fields {
		if s.fields[i].name == key {
			return &s.fields[i]
		}
	}
	return nil
}

func isSection(sections []section, key string) bool {
	return slices.ContainsFunc(sections, func(s section) bool { return s.name == key && key != "" })
}

// shown is a foreign key as it may stand in an error.
func shown(key string) string {
	if key != "" && len(key) <= maxQuoted && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == "" {
		return key
	}
	return quote(key)
}

func unknown(sections []section, s *section, key string) *problem {
	for _, word := range []string{"secret", "password", "passphrase", "ott", "claim"} {
		if strings.Contains(strings.ToLower(key), word) && nearestName(s, key) == "" {
			return &problem{"is not a known key", "take it out: no secret belongs in this file, connect reads it with --claim-file"}
		}
	}
	if best := nearest(sections, s, key); best != "" {
		return &problem{"is not a known key", "did you mean " + best + "?"}
	}
	return &problem{"is not a known key", "see postern config print --defaults"}
}

// override takes in one flag.
func (l *loader) override(c *Config, o Override) {
	sections := schema()
	for i := range sections {
		s := &sections[i]
		name, ok := strings.CutPrefix(o.Key, s.key(""))
		if s.repeated() || !ok {
			continue
		}
		f := s.find(name)
		if f == nil {
			continue
		}
		if p := f.setText(f.at(c), o.Value); p != nil {
			l.report(Error{Flag: o.Flag, Key: o.Key, Problem: p.what, Fix: p.fix})
			return
		}
		c.origin[o.Key] = Origin{Flag: o.Flag}
		return
	}
	l.report(Error{Flag: o.Flag, Key: o.Key, Problem: "is not a key that a flag can set"})
}
