//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// listenUnix opens a socket file in a directory that others cannot write. A
// file that a dead process left is replaced if it is ours; a living one is
// platform.ErrPortTaken.
func (h *Host) listenUnix(ctx context.Context, l platform.Listener) (net.Listener, error) {
	ln, err := h.takeInherited(l)
	if err != nil || ln != nil {
		return ln, err
	}
	parent, base, err := h.parent(l.Address)
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", l.Address, err)
	}
	defer parent.close()
	if err := h.removeStale(ctx, parent, base, l); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	ln, err = lc.Listen(ctx, "unix", l.Address)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("listen %s: %w", l.Address, platform.ErrPortTaken)
	}
	if err != nil {
		return nil, err
	}
	mode := uint32(0o666) // who may do what is decided by peer (firmware-notes/attack-surface.md)
	if l.Access == platform.Private {
		mode = 0o600
	}
	// Until here the umask alone decides, which is never wider than 0666.
	if err := unix.Fchmodat(parent.fd, base, mode, 0); err != nil {
		_ = ln.Close() // also removes the file; the error says more
		return nil, &fs.PathError{Op: "chmod", Path: l.Address, Err: err}
	}
	return ln, nil
}

// removeStale makes room for a new socket file.
func (h *Host) removeStale(ctx context.Context, parent *node, base string, l platform.Listener) error {
	n, err := h.open(parent, base, unix.O_PATH, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer n.close()
	if n.st.Mode&unix.S_IFMT != unix.S_IFSOCK || n.st.Uid != uid() && uid() != 0 {
		return &platform.AccessError{
			Path: n.path, Want: platform.Public,
			Problem: fmt.Sprintf("is a %s of uid %d where our socket should be", kind(n.st.Mode), n.st.Uid), Fix: "rm " + n.path,
		}
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", l.Address)
	if err == nil {
		owner := describePeer(c)
		_ = c.Close() // nothing was said
		return fmt.Errorf("listen %s: %w by %s", l.Address, platform.ErrPortTaken, owner)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	if err := unix.Unlinkat(parent.fd, base, 0); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "remove stale socket", Path: n.path, Err: err}
	}
	return nil
}

// describePeer names who listens on the other side of c.
func describePeer(c net.Conn) string {
	text := "another process"
	u, ok := c.(*net.UnixConn)
	if !ok {
		return text
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return text
	}
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			text = fmt.Sprintf("uid %d, %s", cred.Uid, describeProcess(int(cred.Pid)))
		}
	}); err != nil {
		return "another process"
	}
	return text
}
