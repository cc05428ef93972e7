package interop

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// insideTime bounds one test with all its clients.
const insideTime = 4 * time.Minute

// inside runs f, the body of a top-level test, in namespaces of its own: the
// test binary starts itself again there for this one test. The subtests are
// reported outside under their names.
func inside(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		f(t, newWorld(t))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("not run: a private namespace for real clients needs root")
	}
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), insideTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-n", "-m", "-p", "-f", "--mount-proc", "--kill-child",
		program, "-test.v", "-test.run", "^"+t.Name()+"$", "-test.parallel", "6", "-test.timeout", insideTime.String())
	cmd.Env = append(os.Environ(), insideVariable+"=yes")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	report(t, string(out))
	if err != nil {
		t.Errorf("inside: %v\n%s", err, out)
	}
}

var resultLine = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): [^/\s]+/(\S+)`)

// report repeats the results of the subtests that ran inside.
func report(t *testing.T, out string) {
	t.Helper()
	for _, m := range resultLine.FindAllStringSubmatch(out, -1) {
		t.Run(m[2], func(t *testing.T) {
			switch m[1] {
			case "FAIL":
				t.Error("failed inside, see the output of the whole test")
			case "SKIP":
				t.Skip("skipped inside, see the output of the whole test with -v")
			}
		})
	}
}

// must runs a command of the set-up.
func must(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // other accounts pass through
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil { //nolint:gosec // other accounts read it
		t.Fatal(err)
	}
}

// furnish makes the machine that the clients believe to be on: an installed
// agent's directories, two accounts, hardware that can be exchanged.
func furnish(t *testing.T) {
	t.Helper()
	must(t, "mount", "--make-rprivate", "/")
	must(t, "ip", "link", "set", "lo", "up")
	must(t, "ip", "route", "add", "local", "169.254.169.254/32", "dev", "lo")
	js, err := filepath.Abs("js")
	if err != nil {
		t.Fatal(err)
	}
	hold := "/mnt" // until /run is ours
	must(t, "mount", "-t", "tmpfs", "-o", "mode=0755", "run", hold)
	for name, from := range map[string]string{"tools": os.Getenv(toolsVariable), "js": js, "opt": "/opt"} {
		must(t, "mkdir", "-p", hold+"/"+name)
		must(t, "mount", "--bind", from, hold+"/"+name)
	}
	must(t, "mount", "--rbind", hold, "/run")
	cover(t, "/var/opt")
	cover(t, "/sys")
	cover(t, "/opt")
	keepOpt(t)
	write(t, "/sys/class/dmi/id/board_serial", "board-1")
	write(t, "/sys/class/dmi/id/product_uuid", "uuid-1")
	must(t, "mkdir", "-p", "/var/opt/azcmagent", "/opt/azcmagent/bin", "/run/home")
	must(t, "chmod", "1777", "/run/home")
	must(t, "ln", "-s", "/run/postern/tokens", "/var/opt/azcmagent/tokens")
	over(t, "/etc/group", "root:x:0:\nhimds:x:943:member\n")
	over(t, "/etc/passwd", "root:x:0:0::/root:/bin/sh\npostern:x:942:943::/:/bin/false\n"+
		"member:x:2001:2001::/:/bin/sh\noutsider:x:2002:2002::/:/bin/sh\n")
	write(t, "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0") // the socket unit's part: port 80
}

func cover(t *testing.T, dir string) {
	t.Helper()
	must(t, "mount", "-t", "tmpfs", "-o", "mode=0755", "cover", dir)
}

// over puts content in the place of a file of the machine.
func over(t *testing.T, path, content string) {
	t.Helper()
	mine := "/run/over" + path
	write(t, mine, content)
	must(t, "mount", "--bind", mine, path)
}

// keepOpt leaves what is installed in /opt where it is: node or a JDK may be.
func keepOpt(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir("/run/opt")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "azcmagent" {
			if err := os.Symlink("/run/opt/"+e.Name(), "/opt/"+e.Name()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
