package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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

// TestProgramsThatRoomsAskForAreInstalled looks for tool(t, "program", "package")
// in the tests of all rooms: a bare machine has none of them.
func TestProgramsThatRoomsAskForAreInstalled(t *testing.T) {
	asked := regexp.MustCompile(`\btool\(t, "([^"]+)", "([^"]+)"\)`)
	found := 0
	for _, room := range []string{"agent", "platform", "store"} {
		err := filepath.WalkDir(filepath.Join("..", "..", room), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range asked.FindAllStringSubmatch(string(text), -1) {
				found++
				if !slices.Contains(basics(), need{m[1], m[2]}) {
					t.Errorf("%s asks for %s of the package %s, which no tier installs", path, m[1], m[2])
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Error("no test asks for a program any more: this guard sees nothing")
	}
}

// TestMachinesAreBootedByTheirOwnStepAlone: every package is tested once in the
// short tier, those that boot machines one after the other.
func TestMachinesAreBootedByTheirOwnStepAlone(t *testing.T) {
	low, err := rooms().chosen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boots, err := inMachines("machines", "short", time.Minute).chosen(t.Context())
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

// TestStepsCannotEatTheirTier: a step that hangs must leave time for all others,
// also where machines are slow.
func TestStepsCannotEatTheirTier(t *testing.T) {
	for _, name := range []string{"short", "boot", "hardware", "emulated"} {
		tier, ok := find(name)
		if !ok {
			t.Fatalf("there is no tier %s", name)
		}
		var sum time.Duration
		for _, s := range tier.steps {
			if s.limit <= 0 {
				t.Errorf("%s: step %q has no limit", name, s.name)
			}
			if i := slices.Index(s.test, "-timeout"); i >= 0 {
				if own, err := time.ParseDuration(s.test[i+1]); err != nil || own >= s.limit {
					t.Errorf("%s: step %q would be ended before its tests can say where they hang: %s, %v", name, s.name, own, err)
				}
			}
			sum += s.limit
		}
		if sum > tier.limit {
			t.Errorf("%s: the steps may take %s, the tier only %s", name, sum, tier.limit)
		}
	}
}

// TestCommandThatSucceedsIsCounted: a tier of one command would be said to have
// run no test.
func TestCommandThatSucceedsIsCounted(t *testing.T) {
	for program, want := range map[string]count{"true": {passed: 1}, "false": {}} {
		var total count
		err := step{name: program, run: []string{program}}.do(t.Context(), io.Discard, false, &total)
		if total != want || (err == nil) != (want.passed == 1) {
			t.Errorf("%s: %+v, %v", program, total, err)
		}
	}
}

// TestStepThatHangsIsEndedWithItsChildren: the next step has its turn, and the
// children of the child are gone.
func TestStepThatHangsIsEndedWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	hang := step{name: "hang", run: []string{"sh", "-c", "sleep 1000 & echo $! >" + pid + "; wait"}, limit: 3 * time.Second}
	var out strings.Builder
	var total count
	if err := hang.do(t.Context(), &out, false, &total); err != nil || total.failed != 1 || !strings.Contains(out.String(), "no end within 3s") {
		t.Fatalf("%v, %+v, %q", err, total, out.String())
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); runs(strings.TrimSpace(string(text))); runtime.Gosched() { // it was told to end, and ends when it has its turn
		if time.Now().After(end) {
			t.Fatal("a child runs on")
		}
	}
}

func runs(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// TestWhatAHangingTestSaidIsShown: go test has no event for a test that its
// timeout ended, and prints the stacks as that test's output.
func TestWhatAHangingTestSaidIsShown(t *testing.T) {
	events := `{"Action":"run","Package":"p","Test":"TestEnds"}
{"Action":"output","Package":"p","Test":"TestEnds","Output":"=== RUN   TestEnds\n"}
{"Action":"pass","Package":"p","Test":"TestEnds"}
{"Action":"run","Package":"p","Test":"TestHangs"}
{"Action":"output","Package":"p","Test":"TestHangs","Output":"panic: test timed out after 2s\n"}
{"Action":"output","Package":"pp","Test":"TestOther","Output":"of another package\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t2.007s\n"}
{"Action":"fail","Package":"p","Elapsed":2.007}
`
	var out strings.Builder
	var total count
	watch(strings.NewReader(events), &out, false, &total)
	if total != (count{passed: 1, failed: 1}) || !strings.Contains(out.String(), "TestHangs did not end\npanic: test timed out") {
		t.Errorf("%+v\n%s", total, out.String())
	}
	if strings.Contains(out.String(), "another") {
		t.Errorf("another package's test is taken for one of this: %s", out.String())
	}
}

// TestStepThatFailsLetsTheNextRun: the tier says so and goes on, unless
// somebody stops it.
func TestStepThatFailsLetsTheNextRun(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	two := tier{name: "two", limit: time.Minute, steps: []step{
		{name: "first", run: []string{"sh", "-c", "echo a reason; exit 3"}}, {name: "second", run: []string{"touch", ran}},
	}}
	var out strings.Builder
	var total count
	if err := two.run(t.Context(), &out, false, &total); err != nil || total.failed != 1 || !strings.Contains(out.String(), "a reason") {
		t.Errorf("%v, %+v, %s", err, total, out.String())
	}
	if _, err := os.Stat(ran); err != nil {
		t.Error(err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := two.run(stopped, &out, false, &total); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

func TestUnknownTierIsSaidBeforeTheFirstRuns(t *testing.T) {
	var out strings.Builder
	if code := run([]string{"short", "shrot"}, &out); code != 2 || strings.Contains(out.String(), "==") || !strings.Contains(out.String(), `"shrot"`) {
		t.Errorf("%d, %s", code, out.String())
	}
}
