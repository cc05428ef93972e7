//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/crosscompile/qemu"
)

var _ = qemu.Flag()

// planted compiles the package that misbehaves and makes its folder the working one.
func planted(t *testing.T) string {
	t.Helper()
	qemu.Need(t, "short")
	qemu.Tools(t, "apt-get", "dpkg-deb", "depmod", "modprobe", "mkfs.ext4", "qemu-system-aarch64")
	t.Chdir("testdata/planted")
	binary := filepath.Join(t.TempDir(), "planted.test")
	compile(t, "test", "-c", "-cover", "-o", binary, ".")
	return binary
}

func compile(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	if words, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, words)
	}
}

// try runs the runner and returns its status and what it printed.
func try(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, words bytes.Buffer
	status = run(t.Context(), args, &out, &words)
	return status, out.String(), words.String()
}

func TestStatusIsTheTestsOwnAndFilesComeBack(t *testing.T) {
	binary := planted(t)
	t.Setenv("GIVEN", "by name")
	t.Setenv("HELD_BACK", "a secret of the host")
	out := t.TempDir()
	status, stdout, stderr := try(t, "-disk", "ext4:16M", "-env", "GIVEN", "-with", "go.mod", binary,
		"-test.v", "-test.coverprofile=cover.out", "-test.outputdir="+out, "-test.testlogfile="+filepath.Join(out, "log"))
	if status != 0 {
		t.Fatalf("status %d\n%s\n%.300s", status, stdout, stderr)
	}
	if !strings.Contains(stdout, "page 4096\n") || !strings.Contains(stdout, "a line without an end--- PASS") {
		t.Errorf("stdout is %q", stdout)
	}
	if !strings.Contains(stderr, strings.Repeat("x", 60_000)) || !strings.Contains(stderr, " [cut]\n") {
		t.Errorf("the long line came back as %d bytes without its mark", len(stderr))
	}
	if profile, err := os.ReadFile(filepath.Join(out, "cover.out")); err != nil || !bytes.HasPrefix(profile, []byte("mode: ")) {
		t.Errorf("the coverage profile is %q, %v", profile, err)
	}
	if status, _, _ := try(t, binary, "-test.run=Planted", "-how=fail"); status != 1 {
		t.Errorf("a test that fails has status %d, want 1", status)
	}
}

// TestWhatIsUnclearIsAFailure plants the deaths that must not pass for success.
func TestWhatIsUnclearIsAFailure(t *testing.T) {
	binary := planted(t)
	for _, c := range []struct {
		how  string
		want int
		say  string
		args []string
	}{
		{"power-off", 125, "without an exit line", nil},
		{"panic", 125, "Kernel panic", nil},
		{"memory", 125, "kernel complained", []string{"-mem", "192"}},
		{"signal", 137, "ended by a signal: killed", nil},
		{"hang", 124, "no end within 15s", []string{"-deadline", "15s"}},
	} {
		t.Run(c.how, func(t *testing.T) {
			status, _, stderr := try(t, append(c.args, binary, "-test.run=Planted", "-how="+c.how)...)
			if status != c.want || !strings.Contains(stderr, c.say) || !strings.Contains(stderr, "the end of the console:") {
				t.Errorf("status %d, want %d and %q:\n%s", status, c.want, c.say, stderr)
			}
		})
	}
}

// TestMachineThatDidNotStartIsToldFromATestThatFailed: neither a wrong word nor
// a program that is missing may look like the test's own status.
func TestMachineThatDidNotStartIsToldFromATestThatFailed(t *testing.T) {
	binary := planted(t)
	without := t.TempDir() // what prepares the machine is there, what runs it is not
	for _, program := range []string{"go", "env", "apt-get", "apt-cache", "dpkg-deb", "xz"} {
		path, err := exec.LookPath(program)
		if err == nil {
			err = os.Symlink(path, filepath.Join(without, program))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args      []string
		path, say string
	}{
		{[]string{"-cpu", "none", binary}, "", "the machine did not start"},
		{[]string{"-kernel", "none", binary}, "", "kernel none: "},
		{[]string{"-disk", "ntfs:1M", binary}, "", "-disk is"},
		{[]string{binary + ".none"}, "", "no such file"},
		{[]string{binary}, without, "qemu-system-aarch64 is missing: apt-get install qemu-system-arm"},
	} {
		t.Run(c.say, func(t *testing.T) {
			if c.path != "" {
				t.Setenv("PATH", c.path)
			}
			status, _, stderr := try(t, append(c.args, "-test.run=Planted")...)
			if status != statusNoStart || !strings.Contains(stderr, c.say) {
				t.Errorf("status %d, want %d and %q:\n%s", status, statusNoStart, c.say, stderr)
			}
		})
	}
}

// TestGuestOfAnotherJobIsNotBelieved boots a guest that reports success, of a job
// that nobody gave it.
func TestGuestOfAnotherJobIsNotBelieved(t *testing.T) {
	binary := planted(t)
	liar := filepath.Join(t.TempDir(), "liar")
	compile(t, "build", "-o", liar, "../liar")
	status, _, stderr := try(t, "-guest", liar, binary, "-test.run=Planted")
	if status != 125 || !strings.Contains(stderr, `hello of job "another"`) {
		t.Errorf("status %d, want 125:\n%s", status, stderr)
	}
}

func TestDeadlineIsTheTestsTimeoutAndAMinute(t *testing.T) {
	p := &plan{back: map[string]string{}}
	args, timeout := p.redirect([]string{
		"-test.timeout=90s", "-test.v=true", "-test.cpuprofile=/abs/cpu", "-test.coverprofile=c.out",
		"-test.outputdir=/out", "-test.gocoverdir=/cover", "-test.testlogfile=/log", "-own=1",
	})
	if timeout.Seconds() != 90 {
		t.Errorf("timeout %s", timeout)
	}
	want := "-test.timeout=90s -test.v=true -test.cpuprofile=/job/out/2-cpu -test.coverprofile=/job/out/3-c.out -test.gocoverdir=/job/out/cover -own=1"
	if got := strings.Join(args, " "); got != want {
		t.Errorf("arguments %s\nwant      %s", got, want)
	}
	if p.back["/job/out/2-cpu"] != "/abs/cpu" || p.back["/job/out/3-c.out"] != "/out/c.out" || p.back["/job/out/cover/"] != "/cover" {
		t.Errorf("files go to %v", p.back)
	}
}

func TestOnlyFilesThatWereAskedForAreWritten(t *testing.T) {
	dir := t.TempDir()
	p := &plan{back: map[string]string{"/job/out/c": filepath.Join(dir, "c"), "/job/out/cover/": dir}}
	for name, allowed := range map[string]bool{
		"/job/out/c": true, "/job/out/cover/x": true, "/job/out/cover/../x": false, "/job/out/d": false, "/etc/passwd": false, "": false,
	} {
		if err := p.keep(qemu.Message{Name: name, B64: []byte("x")}); (err == nil) != allowed {
			t.Errorf("%q: %v, want allowed %v", name, err, allowed)
		}
	}
}
