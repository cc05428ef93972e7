package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// need is a program that the tests call, and the Debian package that has it.
type need struct{ program, pkg string }

func basics() []need {
	return []need{
		{"ip", "iproute2"}, {"unshare", "util-linux"}, {"setpriv", "util-linux"}, {"mount", "mount"},
		{"strace", "strace"}, {"setfacl", "acl"}, {"curl", "curl"}, {"git", "git"},
		{"node", "nodejs"}, {"npm", "npm"}, {"javac", "default-jdk-headless"},
	}
}

// install brings the packages whose programs are missing, in one call.
func install(ctx context.Context, out io.Writer, needs []need) error {
	var missing []string
	for _, n := range needs {
		if _, err := exec.LookPath(n.program); err != nil {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	line := "apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if os.Geteuid() != 0 {
		return fmt.Errorf("programs are missing and only root can install them; run: sudo apt-get update && sudo %s", line)
	}
	_, _ = fmt.Fprintf(out, "== install %s\n", strings.Join(missing, " "))
	for _, args := range [][]string{{"apt-get", "update", "-q"}, strings.Fields(line)} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if words, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, words)
		}
	}
	return nil
}
