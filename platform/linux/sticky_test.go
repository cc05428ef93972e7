//go:build linux

package linux

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
	"postern/platform/platformtest"
)

// TestStickyParentsAreForTrialsOnly: below a directory like /tmp the name is
// ours once we made it, but only a trial is content with that; and a directory
// that others can write without the sticky bit is refused to trials, too.
func TestStickyParentsAreForTrialsOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not run: a sticky directory counts only if it is root's, which needs root")
	}
	for _, c := range []struct {
		name    string
		mode    uint32
		allow   bool
		refused bool
	}{
		{"sticky, trial", 0o1777, true, false},
		{"sticky, agent", 0o1777, false, true},
		{"not sticky, trial", 0o777, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			shared := filepath.Join(platformtest.Dir(t), "shared")
			if err := os.Mkdir(shared, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Chmod(shared, c.mode); err != nil {
				t.Fatal(err)
			}
			state := filepath.Join(shared, "state")
			h, err := New(Options{StateDir: state, RuntimeDir: filepath.Join(state, "run"), AllowSticky: c.allow})
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Secure(state, platform.Private); (err != nil) != c.refused {
				t.Errorf("Secure: %v, want refusal %v", err, c.refused)
			}
		})
	}
}

func TestCureOfAParentThatOthersCanWriteCanBePasted(t *testing.T) {
	for _, test := range []struct {
		path string
		mode uint32
		want string
	}{
		{"/tmp", 0o1777, "mkdir -m 0700 /var/lib/postern   # and use that: nothing below /tmp is safe from others"},
		{"/srv", 0o0777, "chmod go-w /srv"},
		{"/var/lib", 0o1777, "chmod go-w /var/lib"},
		{"/var/library", 0o1777, "mkdir -m 0700 /var/lib/postern   # and use that: nothing below /var/library is safe from others"},
	} {
		n := &node{path: test.path}
		n.st.Mode = test.mode
		if got := fixWritable(n); got != test.want {
			t.Errorf("%s, mode %04o: %q, want %q", test.path, test.mode, got, test.want)
		}
	}
}
