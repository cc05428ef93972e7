package config

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Print writes the configuration as a file that Load accepts: the effective
// values, each with its origin behind it; or, with defaults, the commented
// default file, in which every key stands as a comment.
func (c Config) Print(w io.Writer, defaults bool) error {
	text := c.effective
	if defaults {
		text = commented
	}
	_, err := io.WriteString(w, text())
	return err
}

// Value is one effective setting.
type Value struct {
	Key    string // "arc.listen", "grant[0].who"
	Text   string // as TOML
	Origin Origin
}

// Values lists every effective setting in the order of the file.
func (c Config) Values() []Value {
	var all []Value
	c.each(func(key string, at any) { all = append(all, Value{key, literal(at), c.origin[key]}) })
	return all
}

func (c *Config) each(visit func(key string, at any)) {
	for _, s := range schema() {
		if !s.repeated() {
			for _, f := range s.fields {
				visit(s.key(f.name), f.at(c))
			}
			continue
		}
		for i, element := range s.each(c) {
			for _, f := range s.fields {
				visit(fmt.Sprintf("%s[%d].%s", s.name, i, f.name), f.at(element))
			}
		}
	}
}

// Document is the effective configuration as data.
type Document struct {
	Schema string    `json:"schema"`         // "postern.config/1"
	Path   string    `json:"path,omitempty"` // of the file; absent if none was read
	Values []Setting `json:"values"`
}

// Setting is one value as data: sizes and durations as a person writes them.
type Setting struct {
	Key    string `json:"key"` // "arc.listen", "grant[0].who"
	Value  any    `json:"value"`
	Origin string `json:"origin"` // "default", "line 12" or the flag
}

// Document returns what Print shows.
func (c Config) Document() Document {
	d := Document{Schema: "postern.config/1", Path: c.path}
	c.each(func(key string, at any) {
		d.Values = append(d.Values, Setting{key, native(at), c.origin[key].String()})
	})
	return d
}

func native(at any) any {
	switch p := at.(type) {
	case *Size:
		return p.String()
	case *time.Duration:
		return durationText(*p)
	case *[]string:
		return append([]string{}, *p...)
	case *map[string]string:
		if *p == nil {
			return map[string]string{}
		}
	}
	return at
}

func (c Config) effective() string {
	var b strings.Builder
	if c.path == "" {
		b.WriteString("# no configuration file\n")
	} else {
		fmt.Fprintf(&b, "# effective configuration, from %s\n", c.path)
	}
	row := func(key string, at any, o Origin) {
		fmt.Fprintf(&b, "%-56s # %s\n", key+" = "+literal(at), o)
	}
	for _, s := range schema() {
		if !s.repeated() {
			if s.name != "" {
				fmt.Fprintf(&b, "\n%s\n", s.heading())
			}
			for _, f := range s.fields {
				row(f.name, f.at(&c), c.origin[s.key(f.name)])
			}
			continue
		}
		for i, element := range s.each(&c) {
			fmt.Fprintf(&b, "\n%s\n", s.heading())
			for _, f := range s.fields {
				row(f.name, f.at(element), c.origin[fmt.Sprintf("%s[%d].%s", s.name, i, f.name)])
			}
		}
	}
	return b.String()
}

const preamble = `# Configuration of Postern. Every key is shown with its default; take the # away to change one.
# A table in double brackets may stand there many times; take the # of its heading away too. A flag of the same name wins. No secret belongs in this file.
# Check it with: postern config check
`

// commented is the default file.
func commented() string {
	var b strings.Builder
	b.WriteString(preamble)
	c := defaults()
	for _, s := range schema() {
		if s.name != "" {
			b.WriteString("\n")
			comment(&b, s.doc)
			if s.repeated() {
				b.WriteString("#")
			}
			b.WriteString(s.heading() + "\n")
		}
		var target any = &c
		if s.repeated() {
			target = s.add(&Config{})
		}
		for _, f := range s.fields {
			if s.repeated() {
				f.reset(target)
			}
			f.comment(&b, target)
		}
	}
	return b.String()
}

// comment writes one key with its text, choices and default.
func (f *field) comment(b *strings.Builder, target any) {
	b.WriteString("\n")
	comment(b, f.doc)
	if f.choices != nil {
		comment(b, "One of "+orList(f.choices)+".")
	}
	if f.most != 0 {
		comment(b, f.bounds(target))
	}
	if f.example == "" {
		fmt.Fprintf(b, "#%s = %s\n", f.name, literal(f.at(target)))
		return
	}
	if !f.required {
		fmt.Fprintf(b, "#%s = %s\n", f.name, literal(f.at(target)))
		comment(b, "For example "+f.exampleLiteral(target)+".")
		return
	}
	fmt.Fprintf(b, "#%s = %s\n", f.name, f.exampleLiteral(target))
}

// exampleLiteral is the example as TOML. target is left with it.
func (f *field) exampleLiteral(target any) string {
	at := f.at(target)
	_ = f.setText(at, f.example)
	return literal(at)
}

func (f *field) bounds(target any) string {
	least, most := strconv.FormatInt(f.least, 10), strconv.FormatInt(f.most, 10)
	switch f.at(target).(type) {
	case *Size:
		least, most = Size(f.least).String(), Size(f.most).String()
	case *time.Duration:
		least, most = durationText(time.Duration(f.least)), durationText(time.Duration(f.most))
	}
	return "From " + least + " to " + most + "."
}

// comment writes text as comment lines.
func comment(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString("# " + line + "\n")
	}
}

// literal is a value as TOML.
func literal(at any) string {
	switch p := at.(type) {
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *Size:
		return basic(p.String())
	case *time.Duration:
		return basic(durationText(*p))
	case *account:
		return basic(string(*p))
	case *string:
		return basic(*p)
	case *[]string:
		texts := make([]string, len(*p))
		for i, s := range *p {
			texts[i] = basic(s)
		}
		return "[" + strings.Join(texts, ", ") + "]"
	case *map[string]string:
		pairs := make([]string, 0, len(*p))
		for _, k := range slices.Sorted(maps.Keys(*p)) {
			pairs = append(pairs, basic(k)+" = "+basic((*p)[k]))
		}
		if len(pairs) == 0 {
			return "{}"
		}
		return "{ " + strings.Join(pairs, ", ") + " }"
	}
	return ""
}

// basic is a text as a basic string of TOML. Everything that Load accepts is
// printable, so that only the quote and the backslash need an escape.
func basic(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
