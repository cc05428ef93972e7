package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written "28MiB", "512KiB", "1GiB" or as a plain number.
type Size int64

// account is a text that may also be written as a number: a user or group id.
type account string

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// String returns the shortest exact form.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return "0"
}

func parseSize(text string) (Size, *problem) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return Size(n * u.bytes), nil
	}
	return 0, &problem{quote(text) + " is not a size", `write it as "28MiB"`}
}

// durationText is the shortest form of d that ParseDuration reads: 15m, not 15m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func parseDuration(text string) (time.Duration, *problem) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, &problem{quote(text) + " is not a duration", `write it as "15m" or "24h"`}
	}
	return d, nil
}

// set puts a value of the TOML file into the field.
func (f *field) set(at, value any) *problem {
	switch p := at.(type) {
	case *bool:
		b, ok := value.(bool)
		if !ok {
			return mistyped(value, "true or false")
		}
		*p = b
	case *int:
		n, ok := value.(int64)
		if !ok {
			return mistyped(value, "a whole number")
		}
		return f.setCount(p, n)
	case *Size:
		if n, ok := value.(int64); ok {
			return f.setSize(p, Size(n))
		}
		return f.setQuoted(at, value, `a size such as "28MiB"`)
	case *time.Duration:
		return f.setQuoted(at, value, `a duration such as "15m"`)
	case *account:
		if n, ok := value.(int64); ok {
			return f.setText(at, strconv.FormatInt(n, 10))
		}
		return f.setQuoted(at, value, "a name or a number")
	case *string:
		return f.setQuoted(at, value, "a text in quotes")
	case *[]string:
		return f.setList(p, value)
	case *map[string]string:
		return f.setTable(p, value)
	}
	return nil
}

// setQuoted takes a text of the file.
func (f *field) setQuoted(at, value any, want string) *problem {
	text, ok := value.(string)
	if !ok {
		return mistyped(value, want)
	}
	return f.setText(at, text)
}

// setText puts a value as a person types it into the field.
func (f *field) setText(at any, text string) *problem {
	switch p := at.(type) {
	case *bool:
		if text != "true" && text != "false" {
			return &problem{quote(text) + " is neither true nor false", ""}
		}
		*p = text == "true"
	case *int:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return &problem{quote(text) + " is not a whole number", ""}
		}
		return f.setCount(p, n)
	case *Size:
		n, wrong := parseSize(text)
		if wrong != nil {
			return wrong
		}
		return f.setSize(p, n)
	case *time.Duration:
		return f.setDuration(p, text)
	case *account:
		return f.setString((*string)(p), text)
	case *string:
		return f.setString(p, text)
	case *[]string:
		return f.setElements(p, strings.Split(text, ","))
	case *map[string]string:
		return f.setPairs(p, text)
	}
	return nil
}

func (f *field) setCount(p *int, n int64) *problem {
	if n < f.least || n > f.most {
		return &problem{fmt.Sprintf("%d is not between %d and %d", n, f.least, f.most), ""}
	}
	*p = int(n)
	return nil
}

func (f *field) setSize(p *Size, n Size) *problem {
	if int64(n) < f.least || int64(n) > f.most {
		return &problem{fmt.Sprintf("%s is not between %s and %s", n, Size(f.least), Size(f.most)), ""}
	}
	*p = n
	return nil
}

func (f *field) setDuration(p *time.Duration, text string) *problem {
	d, wrong := parseDuration(text)
	if wrong != nil {
		return wrong
	}
	if int64(d) < f.least || int64(d) > f.most {
		return &problem{fmt.Sprintf("%s is not between %s and %s", durationText(d),
			durationText(time.Duration(f.least)), durationText(time.Duration(f.most))), ""}
	}
	*p = d
	return nil
}

func (f *field) setString(p *string, text string) *problem {
	if f.choices != nil && !slices.Contains(f.choices, text) {
		return &problem{quote(text) + " is not known", "use " + orList(f.choices)}
	}
	if text == "" {
		if f.required {
			return &problem{"is empty", "name one"}
		}
	} else if f.check != nil {
		canonical, wrong := f.check(text)
		if wrong != nil {
			return wrong
		}
		text = canonical
	}
	*p = text
	return nil
}

const maxElements = 256 // of a list

func (f *field) setList(p *[]string, value any) *problem {
	list, ok := value.([]any)
	if !ok {
		return mistyped(value, "a list of texts in brackets")
	}
	texts := make([]string, len(list))
	for i, v := range list {
		if texts[i], ok = v.(string); !ok {
			return mistyped(v, "a list of texts in brackets")
		}
	}
	return f.setElements(p, texts)
}

func (f *field) setElements(p *[]string, texts []string) *problem {
	if f.required && len(texts) == 0 {
		return &problem{"is empty", "name one"}
	}
	if len(texts) > maxElements {
		return &problem{fmt.Sprintf("has %d elements, at most %d are allowed", len(texts), maxElements), ""}
	}
	kept := make([]string, 0, len(texts))
	for _, text := range texts {
		if text == "" {
			return &problem{"has an empty element", "leave it out"}
		}
		canonical, wrong := f.check(text)
		if wrong != nil {
			return wrong
		}
		if slices.Contains(kept, canonical) {
			return &problem{quote(text) + " stands there twice", "leave one out"}
		}
		kept = append(kept, canonical)
	}
	*p = kept
	return nil
}

func (f *field) setPairs(p *map[string]string, text string) *problem {
	table := map[string]any{}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return &problem{quote(pair) + " is not a pair", "write it as key=value"}
		}
		table[key] = value
	}
	return f.setTable(p, table)
}

func (f *field) setTable(p *map[string]string, value any) *problem {
	table, ok := value.(map[string]any)
	if !ok {
		return mistyped(value, `a table such as { line = "2" }`)
	}
	if len(table) > maxElements {
		return &problem{fmt.Sprintf("has %d elements, at most %d are allowed", len(table), maxElements), ""}
	}
	kept := make(map[string]string, len(table))
	for _, key := range slices.Sorted(maps.Keys(table)) {
		text, ok := table[key].(string)
		if !ok {
			return mistyped(table[key], `a table such as { line = "2" }`)
		}
		for _, s := range []string{key, text} {
			if _, wrong := f.check(s); wrong != nil {
				return wrong
			}
		}
		if strings.ContainsAny(key+text, ":;") {
			return &problem{quote(key+"="+text) + " has a colon or semicolon, which separate tags for clients", "write it without"}
		}
		kept[key] = text
	}
	*p = kept
	return nil
}

// mistyped says that a value of the file has the wrong type.
func mistyped(value any, want string) *problem {
	return &problem{"is " + typeName(value), "write " + want}
}

func typeName(value any) string {
	switch value.(type) {
	case string:
		return "a text"
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case time.Time:
		return "a date"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "of an unknown type"
}

// orList words choices: "a", "b" or "c".
func orList(choices []string) string {
	quoted := make([]string, len(choices))
	for i, c := range choices {
		quoted[i] = strconv.Quote(c)
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	return strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
}

const maxQuoted = 80

// quote shows a foreign text in an error, cut and safe for a terminal.
func quote(s string) string {
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "…"
	}
	return strconv.QuoteToGraphic(s)
}
