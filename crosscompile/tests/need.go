package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// need is a program that the tests call, or a file by its path, and the Debian
// package that has it.
type need struct{ program, pkg string }

func basics() []need {
	return []need{
		{"ip", "iproute2"},
		{"unshare", "util-linux"},
		{"setpriv", "util-linux"},
		{"mount", "mount"},
		{"strace", "strace"},
		{"setfacl", "acl"},
		{"systemd-analyze", "systemd"},
		{"curl", "curl"},
		{"busybox", "busybox-static"},
		{"shellcheck", "shellcheck"},
		{"git", "git"},
		{"node", "nodejs"},
		{"npm", "npm"},
		{"javac", "default-jdk-headless"},
	}
}

// met tells whether the program or the file is there; a user's PATH lacks the
// folders of the administrator's programs.
func (n need) met() bool {
	if filepath.IsAbs(n.program) {
		_, err := os.Stat(n.program)
		return err == nil
	}
	for _, dir := range []string{"", "/usr/sbin", "/sbin"} {
		if _, err := exec.LookPath(filepath.Join(dir, n.program)); err == nil {
			return true
		}
	}
	return false
}

// unmet are the packages that are missing, each once.
func unmet(needs []need) []string {
	var missing []string
	for _, n := range needs {
		if !n.met() && !slices.Contains(missing, n.pkg) {
			missing = append(missing, n.pkg)
		}
	}
	return missing
}

// install brings the packages whose programs are missing, in one call. Once
// apt-get unpacks it is not interrupted: what it left half done somebody would
// have to repair by hand.
func install(ctx context.Context, out io.Writer, needs []need) error {
	missing := unmet(needs)
	if len(missing) == 0 {
		return nil
	}
	names := strings.Join(missing, " ")
	line := "apt-get install -y --no-install-recommends " + names
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("programs are missing, and there is no apt-get to install them; Debian's names of their packages: %s", names)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("programs are missing and only root can install them; run: sudo apt-get update && sudo %s", line)
	}
	_, _ = fmt.Fprintf(out, "== install %s\n", names)
	if err := aptGet(ctx, "update", "-q"); err != nil {
		return err
	}
	if err := aptGet(context.WithoutCancel(ctx), strings.Fields(line)[1:]...); err != nil {
		return err
	}
	if still := unmet(needs); len(still) > 0 { // or everybody but root would be told for ever to install it
		return fmt.Errorf("packages were installed, and what is needed of them is not there: %s", strings.Join(still, " "))
	}
	return ctx.Err()
}

// aptGet runs apt-get in a process group of its own, which a Ctrl-C at the
// terminal does not reach.
func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	together(cmd)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if words, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, words)
	}
	return nil
}
