//go:build linux

package main

import (
	"strings"
	"testing"
	"text/tabwriter"

	"postern/crosscompile"
)

// TestEveryTargetHasASizeInTheTable: the file with the sizes has its own form.
func TestEveryTargetHasASizeInTheTable(t *testing.T) {
	t.Chdir("../..")
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 2, 8, 2, ' ', 0)
	if err := (&bench{}).sizes(t.Context(), options{}, table); err != nil {
		t.Fatal(err)
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, target := range crosscompile.Targets() {
		if !strings.Contains(text.String(), "binary "+target.String()+" ") {
			t.Errorf("the table lacks %s:\n%s", target, text.String())
		}
	}
	if strings.Contains(text.String(), " 0.00 MB") {
		t.Errorf("a size is none:\n%s", text.String())
	}
}
