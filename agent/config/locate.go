package config

import (
	"strconv"
	"strings"
)

// locate says on which line each key and heading of a TOML document stands, by
// full name with indices: "arc.listen", "grant[1].who", "grant[1]". The
// document must have been parsed already, since the parser does not tell where
// the keys were: what is not TOML ends the search, what was found stays.
func locate(document string) map[string]int {
	l := locator{text: document, line: 1, lines: map[string]int{}, counts: map[string]int{}}
	for l.pos < len(l.text) {
		before := l.pos
		l.statement()
		if l.pos == before {
			break
		}
	}
	return l.lines
}

type locator struct {
	text   string
	pos    int
	line   int
	table  string // prefix of the current heading, with its dot
	lines  map[string]int
	counts map[string]int // tables of each array so far
}

// statement reads a heading, a pair, or what lies between them.
func (l *locator) statement() {
	l.blank()
	switch {
	case l.pos >= len(l.text):
	case strings.HasPrefix(l.text[l.pos:], "[["):
		l.skip(2)
		l.heading(true)
	case l.text[l.pos] == '[':
		l.skip(1)
		l.heading(false)
	default:
		l.pair(l.table)
	}
}

// heading reads the name of a table, after its bracket.
func (l *locator) heading(repeated bool) {
	line, name := l.line, l.resolve(l.key())
	if repeated {
		n := l.counts[name]
		l.counts[name] = n + 1
		l.note(name, line)
		name += "[" + strconv.Itoa(n) + "]"
	}
	l.note(name, line)
	l.table = name + "."
	for l.pos < len(l.text) && l.text[l.pos] == ']' {
		l.skip(1)
	}
}

// resolve names the newest table of each array on the way to a table.
func (l *locator) resolve(parts []string) string {
	name := ""
	for i, part := range parts {
		name += part
		if n := l.counts[name]; n > 0 && i < len(parts)-1 {
			name += "[" + strconv.Itoa(n-1) + "]"
		}
		if i < len(parts)-1 {
			name += "."
		}
	}
	return name
}

// pair reads a key, dotted or not, and its value.
func (l *locator) pair(prefix string) {
	line, parts := l.line, l.key()
	l.blank()
	if len(parts) == 0 || l.pos >= len(l.text) || l.text[l.pos] != '=' {
		l.pos = len(l.text) // not TOML
		return
	}
	l.skip(1)
	for i := range parts {
		l.note(prefix+strings.Join(parts[:i+1], "."), line)
	}
	l.value(prefix + strings.Join(parts, "."))
}

func (l *locator) note(name string, line int) {
	if _, ok := l.lines[name]; !ok {
		l.lines[name] = line
	}
}

// value reads one value, looking for keys in tables inside it.
func (l *locator) value(name string) {
	l.blank()
	if l.pos >= len(l.text) {
		return
	}
	switch l.text[l.pos] {
	case '"', '\'':
		l.quoted()
	case '[':
		l.skip(1)
		for i := 0; l.more(']'); i++ {
			element := name + "[" + strconv.Itoa(i) + "]"
			l.note(element, l.line)
			l.value(element)
		}
	case '{':
		l.skip(1)
		for l.more('}') {
			l.pair(name + ".")
		}
	default:
		for l.pos < len(l.text) && !strings.ContainsRune(",]}#\r\n", rune(l.text[l.pos])) {
			l.skip(1)
		}
	}
}

// more steps to the next element of a list or table; false at its end.
func (l *locator) more(end byte) bool {
	l.blank()
	for l.pos < len(l.text) && l.text[l.pos] == ',' {
		l.skip(1)
		l.blank()
	}
	if l.pos < len(l.text) && l.text[l.pos] == end {
		l.skip(1)
		return false
	}
	return l.pos < len(l.text)
}

// key reads a dotted key.
func (l *locator) key() []string {
	var parts []string
	for {
		l.blank()
		if l.pos >= len(l.text) {
			return parts
		}
		if c := l.text[l.pos]; c == '"' || c == '\'' {
			parts = append(parts, l.quoted())
		} else {
			start := l.pos
			for l.pos < len(l.text) && !strings.ContainsRune(" \t\r\n.=]#\"'", rune(l.text[l.pos])) {
				l.skip(1)
			}
			if l.pos == start {
				return parts
			}
			parts = append(parts, l.text[start:l.pos])
		}
		l.blank()
		if l.pos >= len(l.text) || l.text[l.pos] != '.' {
			return parts
		}
		l.skip(1)
	}
}

// quoted reads a text of any of the four kinds and returns what stands in it;
// escapes are resolved where Go knows them too.
func (l *locator) quoted() string {
	mark := l.text[l.pos : l.pos+1]
	if long := strings.Repeat(mark, 3); strings.HasPrefix(l.text[l.pos:], long) {
		mark = long
	}
	l.skip(len(mark))
	start := l.pos
	for l.pos < len(l.text) && !strings.HasPrefix(l.text[l.pos:], mark) {
		if mark[0] == '"' && l.text[l.pos] == '\\' {
			l.skip(1)
		}
		l.skip(1)
	}
	inside := l.text[start:min(l.pos, len(l.text))]
	l.skip(len(mark))
	for len(mark) == 3 && l.pos < len(l.text) && l.text[l.pos] == mark[0] {
		l.skip(1) // up to two quotes may stand before the closing three
	}
	if mark == `"` {
		if plain, err := strconv.Unquote(`"` + inside + `"`); err == nil {
			return plain
		}
	}
	return inside
}

// blank skips white space, line ends and comments.
func (l *locator) blank() {
	for l.pos < len(l.text) {
		switch l.text[l.pos] {
		case ' ', '\t', '\r', '\n':
			l.skip(1)
		case '#':
			for l.pos < len(l.text) && l.text[l.pos] != '\n' {
				l.skip(1)
			}
		default:
			return
		}
	}
}

// skip goes on by n bytes, counting lines.
func (l *locator) skip(n int) {
	for range n {
		if l.pos >= len(l.text) {
			return
		}
		if l.text[l.pos] == '\n' {
			l.line++
		}
		l.pos++
	}
}
