package platformtest

import (
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// InNamespace runs f on a thread of its own with private copies of what flags
// name (unix.CLONE_NEWNS, unix.CLONE_NEWNET); nothing that it mounts or routes
// is seen outside. It needs root. f must not start goroutines that need the
// namespace; what it starts by exec inherits it.
func InNamespace(t *testing.T, flags int, f func()) {
	t.Helper()
	onSpareThread(func() {
		if err := unix.Unshare(flags | unix.CLONE_FS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if flags&unix.CLONE_NEWNS != 0 {
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				t.Errorf("make mounts private: %v", err)
				return
			}
		}
		f()
	})
}

// onSpareThread runs f on a thread that ends with it and is not the main one,
// whose namespaces are what /proc/self shows of the whole process.
func onSpareThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onSpareThread(f) // cannot land here again: we sit on it
			return
		}
		f() // never unlocked: the thread dies with its namespaces
	}()
	<-done
}

// mountedOver: a watcher is blind to it and the descriptor still works, but
// clients would see another directory.
func mountedOver(t *testing.T, s suite) {
	InNamespace(t, unix.CLONE_NEWNS, func() {
		path := s.path("held")
		if err := s.Secure(path, platform.TokenReaders); err != nil {
			t.Error(err)
			return
		}
		d, err := s.OpenDir(path, platform.TokenReaders)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}()
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("mode=0750,gid=%d", Reader())); err != nil {
			t.Errorf("mount: %v", err)
			return
		}
		if err := d.Check(); err == nil {
			t.Error("a mount over the directory was not seen by Check")
		}
		if err := d.Create("a.key", nil); err == nil {
			t.Error("a mount over the directory was not seen by Create")
		}
		if err := unix.Unmount(path, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
		if err := d.Check(); err != nil {
			t.Errorf("unmounted again: %v", err)
		}
	})
}
