package config

import (
	"strconv"
	"strings"
)

// maxDepth bounds the parts of a key and the nesting of a value. The parser's
// memory grows with the square of either: a file of 200 KB that is one key of
// 100,000 dots takes more than 6 GB (measured).
const maxDepth = 8

// locate says on which line each key and heading of a TOML document stands, by
// full name with indices: "arc.listen", "grant[1].who", "grant[1]". The parser
// does not tell where the keys were. What is not TOML ends the search, since
// the parser stops there too; what was found stays. deep is the line on which
// maxDepth is exceeded, which ends the search as well, 0 if there is none.
func locate(document string) (lines map[string]int, deep int) {
	l := locator{text: document, line: 1, lines: map[string]int{}, counts: map[string]int{}}
	for l.pos < len(l.text) {
		before := l.pos
		l.statement()
		if l.pos == before {
			break
		}
	}
	return l.lines, l.deep
}

type locator struct {
	text   string
	pos    int
	line   int
	table  string // prefix of the current heading, with its dot
	lines  map[string]int
	counts map[string]int // tables of each array so far
	depth  int            // of the value that is being read
	deep   int            // line on which maxDepth was exceeded
}

// stop ends the search.
func (l *locator) stop() { l.pos = len(l.text) }

// tooDeep ends the search where a key or value goes deeper than maxDepth.
func (l *locator) tooDeep(depth int) bool {
	if depth <= maxDepth {
		return false
	}
	l.deep = l.line
	l.stop()
	return true
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
	line := l.line
	name := l.resolve(l.key(), line)
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

// resolve names the newest table of each array on the way to a table, and
// notes the tables on the way that had no heading of their own.
func (l *locator) resolve(parts []string, line int) string {
	name := ""
	for i, part := range parts {
		name += part
		if i == len(parts)-1 {
			break
		}
		if n := l.counts[name]; n > 0 {
			name += "[" + strconv.Itoa(n-1) + "]"
		}
		l.note(name, line)
		name += "."
	}
	return name
}

// pair reads a key, dotted or not, and its value.
func (l *locator) pair(prefix string) {
	line, parts := l.line, l.key()
	l.blank()
	if len(parts) == 0 || l.pos >= len(l.text) || l.text[l.pos] != '=' {
		l.stop() // not TOML
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
	l.depth++
	defer func() { l.depth-- }()
	l.blank()
	if l.pos >= len(l.text) || l.tooDeep(l.depth) {
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
		start := l.pos
		for l.pos < len(l.text) && !strings.ContainsRune(",]}#\r\n", rune(l.text[l.pos])) {
			l.skip(1)
		}
		if l.pos == start {
			l.stop() // no value: not TOML
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
		if l.pos >= len(l.text) || l.text[l.pos] != '.' || l.tooDeep(len(parts)+1) {
			return parts
		}
		l.skip(1)
	}
}

// quoted reads a text of any of the four kinds and returns what stands in it;
// only in a key, which is never of more lines than one, are escapes resolved.
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
		return unescape(inside)
	}
	return inside
}

// unescape resolves the escapes of a basic string. Go knows all but two, which
// have another meaning or none.
func unescape(inside string) string {
	var b strings.Builder
	for i := 0; i < len(inside); i++ {
		if inside[i] != '\\' || i+1 == len(inside) {
			b.WriteByte(inside[i])
			continue
		}
		i++
		switch inside[i] {
		case 'e':
			b.WriteString(`\u001b`)
		case 'x':
			b.WriteString(`\u00`)
		default:
			b.WriteString(inside[i-1 : i+1])
		}
	}
	if plain, err := strconv.Unquote(`"` + b.String() + `"`); err == nil {
		return plain
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
