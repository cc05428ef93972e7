//go:build linux

package linux

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
	"postern/platform/platformtest"
)

// TestFallbacksAreTakenExactlyWhereTheKernelLacksTheCall uses what has a
// fallback and looks which way was gone. On a whole kernel none may be taken:
// the older ways are slower or say less.
func TestFallbacksAreTakenExactlyWhereTheKernelLacksTheCall(t *testing.T) {
	h := testHost(t)
	if err := h.WriteFile(h.dirs.State+"-file", []byte("x"), platform.Private); err != nil {
		t.Fatal(err)
	}
	way(t, platformtest.Openat2, h.without.openat2.Load())

	ln, err := h.Listen(t.Context(), platform.Listener{Network: "tcp4", Address: "127.0.0.1:0", Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's listener
	p := start(t, "caller", nil)
	p.say(t, "tcp4 "+ln.Addr().String()+" -")
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's connection
	if got := h.Peer(c); got != platform.UIDPeer(uid()) {
		t.Errorf("the peer is %v, want our own account", got)
	}
	way(t, platformtest.SockDiag, h.without.sockDiag.Load())

	if missing := platformtest.Lacks(platformtest.Landlock); missing != nil {
		level, err := h.Confine(platform.Confinement{})
		if level != "none" || !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("without Landlock the level is %q, %v", level, err)
		}
		way(t, platformtest.Landlock, true)
	}
}

// way says which of two ways was gone, in words that crosscompile/emulated looks for.
func way(t *testing.T, f platformtest.Feature, fallback bool) {
	t.Helper()
	missing := platformtest.Lacks(f)
	if fallback != (missing != nil) {
		t.Errorf("%s: kernel says %v, fallback taken: %v", f, missing, fallback)
	}
	if fallback {
		t.Logf("fallback taken: %s", f)
	}
}
