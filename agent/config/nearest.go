package config

import "strings"

// nearest finds the known key that was probably meant by key in the section:
// one of the section that differs by little, or one of the same name in another
// section. Empty if there is none.
func nearest(sections []section, in *section, key string) string {
	if best := nearestName(in, key); best != "" {
		return in.key(best)
	}
	if in.name == "" {
		if best := nearestSection(sections, key); best != "" {
			return best
		}
	}
	for i := range sections {
		for _, f := range sections[i].fields {
			if f.name == strings.ToLower(key) {
				return sections[i].key(f.name)
			}
		}
	}
	return ""
}

func nearestName(in *section, key string) string {
	names := make([]string, len(in.fields))
	for i, f := range in.fields {
		names[i] = f.name
	}
	return closest(names, key)
}

func nearestSection(sections []section, key string) string {
	var names []string
	for _, s := range sections {
		if s.name != "" {
			names = append(names, s.name)
		}
	}
	best := closest(names, key)
	for i := range sections {
		if best != "" && sections[i].name == best {
			return sections[i].heading()
		}
	}
	return ""
}

// heading is how the section begins in the file.
func (s *section) heading() string {
	switch {
	case s.name == "":
		return ""
	case s.repeated():
		return "[[" + s.name + "]]"
	}
	return "[" + s.name + "]"
}

// closest returns the name that fewest single-letter changes make of key, if
// they are few for its length.
func closest(names []string, key string) string {
	key = strings.ReplaceAll(strings.ToLower(key), "-", "_")
	best, least := "", max(1, min(len(key), 24)/3)+1
	for _, name := range names {
		if d := Distance(key, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// Distance is the number of single-letter changes between a, which somebody
// wrote, and b, a name of ours. What is longer than any of ours, 64 bytes, is far
// from all: its own length.
func Distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
