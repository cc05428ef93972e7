package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPackagesAreCheckedByProgramOrPath(t *testing.T) {
	here := filepath.Join(t.TempDir(), "u-boot.bin")
	if err := os.WriteFile(here, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for program, met := range map[string]bool{"go": true, here: true, here + ".missing": false, "no-such-program": false} {
		if got := (need{program, "pkg"}).met(); got != met {
			t.Errorf("%s: met is %v, want %v", program, got, met)
		}
	}
}

func TestMissingPackagesAreNamedOnce(t *testing.T) {
	got := unmet([]need{{"no-such-program", "one"}, {"/no/such/file", "one"}, {"go", "golang"}, {"/no/such", "two"}})
	if !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("missing are %v, want one and two", got)
	}
}

// TestMachinesAreBootedByTheirOwnStepAlone: every package is tested once in the
// short tier, those that boot machines one after the other.
func TestMachinesAreBootedByTheirOwnStepAlone(t *testing.T) {
	low, err := rooms().chosen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boots, err := inMachines("machines", "short").chosen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(low, "postern/store") || !slices.Contains(boots, machines) || !slices.Contains(boots, machines+"/exec") {
		t.Errorf("rooms are %v\nmachines are %v", low, boots)
	}
	for _, arg := range low {
		if strings.HasPrefix(arg, "postern/") && slices.Contains(boots, arg) {
			t.Errorf("%s is tested twice", arg)
		}
	}
	if i := slices.Index(boots, "-p"); i < 0 || boots[i+1] != "1" {
		t.Errorf("two machines may run at once: %v", boots)
	}
}

func TestEveryTierIsBounded(t *testing.T) {
	seen := map[string]bool{}
	for _, tier := range tiers() {
		if tier.limit <= 0 || tier.what == "" || seen[tier.name] {
			t.Errorf("tier %q has limit %s and words %q, or stands there twice", tier.name, tier.limit, tier.what)
		}
		seen[tier.name] = true
	}
}
