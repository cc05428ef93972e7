package main

import "postern/agent/config"

// closest returns the name that fewer than limit single-letter changes make of
// word; empty if there is none.
func closest(names []string, word string, limit int) string {
	best := ""
	for _, name := range names {
		if d := config.Distance(word, name); d < limit {
			best, limit = name, d
		}
	}
	return best
}
