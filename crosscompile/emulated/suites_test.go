//go:build linux

package emulated

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const suiteVariable = "POSTERN_EMULATED_SUITE"

// lacking is what every emulated world lacks, in the words of
// platformtest.NeedFeature, and what must be done without there.
func lacking() (features, fallbacks []string) {
	return []string{"Landlock", "a process whose threads are all the program's", "clone into a namespace", "mknod of a device"},
		[]string{"openat2", "NETLINK_SOCK_DIAG", "Landlock"}
}

// suite is a package whose tests run under the emulator. Of the store it is
// what guards keys, files and their formats; what traces or kills processes,
// fills disks or plays a year speaks of the host's kernel, not of the processor,
// and a user namespace makes no devices.
type suite struct {
	pkg, run, skip string
	limit          time.Duration
}

func suites() []suite {
	return []suite{
		{"platform/linux", ".", "", 5 * time.Minute},
		{"agent/challenge", ".", "", 5 * time.Minute},
		{
			"store", "ST[12568]_|ST1[5-9]_|Identity|Sealed|Sealing|Destroy|Key|Child|Plain|Marker|Head|Golden|Link|Stranger|Secret|Verify|Survive",
			"AnyBit", 10 * time.Minute,
		},
	}
}

// TestSecuritySuitesPassWithTheFallbacks runs the tests of what guards files,
// callers and challenges where six calls of the kernel are missing, and prints
// what was left out, and why. A test may only be left out for a feature that is
// known to be missing there; and the fallbacks must really have been taken.
func TestSecuritySuitesPassWithTheFallbacks(t *testing.T) {
	for _, m := range machines() {
		for _, s := range suites() {
			t.Run(m.name+"/"+strings.ReplaceAll(s.pkg, "/", "_"), func(t *testing.T) {
				need(t, m)
				if os.Getenv(tierVariable) != "full" {
					t.Skip("not run: part of the full tier; run go run ./crosscompile/tests emulated")
				}
				binary := os.Getenv(suiteVariable)
				if binary == "" {
					binary = compile(t, m, s.pkg)
				}
				if inWorld(t, m, s.limit+time.Minute, suiteVariable+"="+binary) {
					play(t, s, binary)
				}
			})
		}
	}
}

func compile(t *testing.T, m machine, pkg string) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // other accounts start it, too
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, filepath.Base(pkg)+".test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "./"+pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+m.target.Arch, "GOARM="+m.target.ARM)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", pkg, err, out)
	}
	return binary
}

var (
	outcome = regexp.MustCompile(`(?m)^\s*--- (PASS|FAIL|SKIP): (\S+)`)
	missing = regexp.MustCompile(`not run: no (.+?) here: (.+)`)
	taken   = regexp.MustCompile(`fallback taken: (.+)`)
)

// play runs one suite in the world and judges what it prints.
func play(t *testing.T, s suite, binary string) {
	began := time.Now()
	args := []string{"-test.v", "-test.timeout=" + s.limit.String(), "-test.run=" + s.run}
	if s.skip != "" {
		args = append(args, "-test.skip="+s.skip)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = filepath.Join("../..", s.pkg)
	out, err := cmd.CombinedOutput()
	count := map[string]int{}
	for _, m := range outcome.FindAllStringSubmatch(string(out), -1) {
		count[m[1]]++
		if m[1] != "PASS" {
			t.Logf("%s %s", m[1], m[2])
		}
	}
	if err != nil || count["FAIL"] > 0 || count["PASS"] == 0 {
		t.Errorf("%s: %v\n%s", s.pkg, err, out)
	}
	reasons := map[string]bool{}
	for _, m := range missing.FindAllStringSubmatch(string(out), -1) {
		reasons[m[1]] = true
		t.Logf("left out for want of %s: %s", m[1], m[2])
	}
	features, fallbacks := lacking()
	for reason := range reasons {
		if !slices.Contains(features, reason) {
			t.Errorf("%s: tests were left out for want of %s, which nobody expected", s.pkg, reason)
		}
	}
	if skipped := len(missing.FindAllString(string(out), -1)); count["SKIP"] != skipped {
		t.Errorf("%s: %d tests were skipped, only %d of them for want of a feature", s.pkg, count["SKIP"], skipped)
	}
	t.Logf("%s: %d passed, %d left out, %s", s.pkg, count["PASS"], count["SKIP"], time.Since(began).Round(100*time.Millisecond))
	if s.pkg != "platform/linux" {
		return
	}
	seen := map[string]bool{}
	for _, m := range taken.FindAllStringSubmatch(string(out), -1) {
		seen[m[1]] = true
	}
	for _, f := range fallbacks {
		if !seen[f] {
			t.Errorf("the fallback for %s was not taken; seen: %v", f, slices.Sorted(maps.Keys(seen)))
		}
	}
}
