//go:build linux

package initfiles

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenRCLogsWhereItsSupervisorCan: supervise-daemon answers nobody who does
// not name the service first, and older ones know no logger.
func TestOpenRCLogsWhereItsSupervisorCan(t *testing.T) {
	for options, want := range map[string]string{
		"--stdout-logger <arg>\n--stderr-logger <arg>": "logger -t postern -p daemon.info,logger -t postern -p daemon.info,",
		"--stderr <arg>": ",,/var/log/postern.log",
	} {
		dir := t.TempDir()
		supervisor := "#!/bin/sh\n[ \"$1 $2\" = 'postern --help' ] || { echo \"the first argument is $1 and must be postern\" >&2; exit 1; }\nprintf 'Options:\\n" + options + "\\n'\n"
		must(t, os.WriteFile(filepath.Join(dir, "supervise-daemon"), []byte(supervisor), 0o755)) //nolint:gosec // a program
		cmd := exec.Command("sh", "-s")
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "RC_SVCNAME=postern")
		cmd.Stdin = strings.NewReader("checkpath() { :; }\n" + shipped(t, "openrc/postern") + "\nstart_pre\necho \"$output_logger,$error_logger,$error_log\"\n")
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("with %q: %q, want %q, %v", options, got, want, err)
		}
	}
}
