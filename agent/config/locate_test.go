package config

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

func TestKeysAreFoundOnTheirLines(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       map[string]int
	}{
		{"empty", "", map[string]int{}},
		{"comments and blank lines", "# a = 1\n\n  # [b]\n", map[string]int{}},
		{"top and table", "a = 1\n\n[t] # x\nb = 2", map[string]int{"a": 1, "t": 3, "t.b": 4}},
		{"lists of tables", "[[g]]\nw = 1\n[[g]]\nw = 2\n[g.sub]\nx = 1", map[string]int{
			"g": 1, "g[0]": 1, "g[0].w": 2, "g[1]": 3, "g[1].w": 4, "g[1].sub": 5, "g[1].sub.x": 6,
		}},
		{"dotted keys", "a.b . c = 1", map[string]int{"a": 1, "a.b": 1, "a.b.c": 1}},
		{"dotted heading", "[ a . \"b\" ]\nc = 1", map[string]int{"a": 1, "a.b": 1, "a.b.c": 2}},
		{"quoted keys", "'a' = 1\n\"b\\u0041\\e\\xe4\\\\x41\\\"\" = 2", map[string]int{"a": 1, "bA\x1bä\\x41\"": 2}},
		{
			"texts that look like keys", "a = \"b = 1\"\nc = '''\nd = 2\n'''\ne = \"\"\"\n[f]\n\\\"\"\"\"\ng = 1",
			map[string]int{"a": 1, "c": 2, "e": 5, "g": 8},
		},
		{"quotes before the closing three", "a = \"\"\"x\"\"\"\"\"\nb = 1", map[string]int{"a": 1, "b": 2}},
		{"list over lines", "a = [\n  1, # b = 2\n  [2, 3],\n]\nc = 1", map[string]int{
			"a": 1, "a[0]": 2, "a[1]": 3, "a[1][0]": 3, "a[1][1]": 3, "c": 5,
		}},
		{"inline tables", "a = { b = 1, c = { d = \"}\" } }\ne = 1", map[string]int{
			"a": 1, "a.b": 1, "a.c": 1, "a.c.d": 1, "e": 2,
		}},
		{"list of inline tables", "g = [\n { w = 1 },\n { w = 2 } ]", map[string]int{
			"g": 1, "g[0]": 2, "g[0].w": 2, "g[1]": 3, "g[1].w": 3,
		}},
		{"line ends of Windows", "a = 1\r\nb = 2\r\n", map[string]int{"a": 1, "b": 2}},
		{"dates", "a = 2026-11-20 10:00:00\nb = 1", map[string]int{"a": 1, "b": 2}},
		{"no TOML ends the search", "a = 1\nb\nc = 3", map[string]int{"a": 1}},
		{"unclosed text", "a = \"b", map[string]int{"a": 1}},
		{"unclosed list", "a = [", map[string]int{"a": 1}},
		{"no value ends the search", "a = [0 }\nb = 1", map[string]int{"a": 1, "a[0]": 1, "a[1]": 1}},
		{"no value in a table", "a = {b=,c=1}", map[string]int{"a": 1, "a.b": 1}},
		{"unclosed heading", "[a", map[string]int{"a": 1}},
	} {
		if got, _ := locate(row.text); !maps.Equal(got, row.want) {
			t.Errorf("%s:\ngot  %v\nwant %v", row.name, got, row.want)
		}
	}
}

// Without the bound the parser would take gigabytes.
func TestKeysAndValuesThatGoTooDeepAreRefusedBeforeTheyAreParsed(t *testing.T) {
	repeat := strings.Repeat
	for _, row := range []struct {
		name, text string
		deep       int
	}{
		{"key of 8 parts", "\na" + repeat(".a", 7) + " = 1", 0},
		{"key of 9 parts", "\na" + repeat(".a", 8) + " = 1", 2},
		{"key of 100,000 parts", "a" + repeat(".a", 100_000) + " = 1", 1},
		{"heading of 100,000 parts", "[a" + repeat(".\"a\"", 40_000) + "]", 1},
		{"list 8 deep", "a = " + repeat("[", 7) + "1" + repeat("]", 7), 0},
		{"list 9 deep", "a = " + repeat("[", 8) + "1" + repeat("]", 8), 1},
		{"list 100,000 deep", "a = " + repeat("[", 100_000) + repeat("]", 100_000), 1},
		{"table 50,000 deep", repeat("a={", 50_000) + repeat("}", 50_000), 1},
		{"many that are not deep", repeat("a = [[1]]\n", 20_000), 0},
	} {
		if _, deep := locate(row.text); deep != row.deep {
			t.Errorf("%s: too deep on line %d, want %d", row.name, deep, row.deep)
		}
		if row.deep > 0 {
			_, err := Load("/c", func(string) ([]byte, error) { return []byte(row.text), nil })
			if want := fmt.Sprintf("/c:%d: is nested more than 8 deep; no key of this file is", row.deep); err == nil || err.Error() != want {
				t.Errorf("%s: got %v, want %s", row.name, err, want)
			}
		}
	}
}

func TestEverySectionAndKeyIsDescribedAndHasAValidDefault(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range schema() {
		if s.name != "" && s.doc == "" {
			t.Errorf("%s has no text", s.heading())
		}
		if s.repeated() && (s.limit == 0 || s.each == nil) {
			t.Errorf("%s has no limit", s.heading())
		}
		c := defaults()
		var target any = &c
		if s.repeated() {
			target = s.add(&c)
		}
		for _, f := range s.fields {
			key := s.key(f.name)
			if seen[key] {
				t.Errorf("%s stands there twice", key)
			}
			seen[key] = true
			for what, text := range map[string]string{"default": f.fallback, "example": f.example} {
				if text == "" {
					continue
				}
				if p := f.setText(f.at(target), text); p != nil {
					t.Errorf("%s: the %s %q %s", key, what, text, p.what)
				}
			}
			switch f.at(target).(type) {
			case *[]string, *map[string]string:
				if f.check == nil {
					t.Errorf("%s: elements are not checked", key)
				}
			case *string, *account:
				if f.check == nil && f.choices == nil {
					t.Errorf("%s: any text is accepted", key)
				}
			case *int, *Size:
				if f.most == 0 {
					t.Errorf("%s: any number is accepted", key)
				}
			}
		}
	}
}

func TestTheNearestKeyIsOfferedOnlyWhenItIsNear(t *testing.T) {
	sections := schema()
	for _, row := range []struct{ section, key, want string }{
		{"", "statedir", "state_dir"},
		{"", "state-dir", "state_dir"},
		{"", "LOG", "log"},
		{"", "logs", "log"},
		{"", "workloads", "[[workload]]"},
		{"", "authority_url", "[authority]"},
		{"", "issuer", "token.issuer"},
		{"", "x", ""},
		{"arc", "liste", "arc.listen"},
		{"grant", "resource", "grant.resources"},
		{"token", "resources_param", "token.resource_param"},
		{"key", "issuer", "token.issuer"},
	} {
		for i := range sections {
			if sections[i].name != row.section {
				continue
			}
			if got := nearest(sections, &sections[i], row.key); got != row.want {
				t.Errorf("%q in %q: offers %q, want %q", row.key, row.section, got, row.want)
			}
		}
	}
}
