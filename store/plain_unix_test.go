//go:build unix

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Without O_NOFOLLOW a link would be followed, without O_NONBLOCK the FIFO
// would hang this test.
func TestPlainOpenFollowsNoLinkAndCannotHang(t *testing.T) {
	dir := t.TempDir()
	target, link, fifo := filepath.Join(dir, "target"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	must(t, errors.Join(os.WriteFile(target, []byte("x"), 0o600), os.Symlink(target, link), syscall.Mkfifo(fifo, 0o600)))
	for _, path := range []string{link, fifo, dir} {
		for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE} {
			if f, err := openPlain(path, flag); !errors.Is(err, ErrUnsafe) {
				t.Errorf("%s, flag %x: %v, %v, want ErrUnsafe", path, flag, f, err)
			}
		}
	}
	f := value(openPlain(filepath.Join(dir, "new"), os.O_RDWR|os.O_CREATE|os.O_EXCL))(t)
	if mode := value(f.Stat())(t).Mode(); mode != 0o600 {
		t.Errorf("born with mode %v, want 0600", mode)
	}
	must(t, f.Close())
	must(t, os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "dangling")))
	if _, err := openPlain(filepath.Join(dir, "dangling"), os.O_RDWR|os.O_CREATE); !errors.Is(err, ErrUnsafe) || !missing(filepath.Join(dir, "elsewhere")) {
		t.Errorf("a dangling link was followed: %v", err)
	}
}

func TestPlainWriteReplacesWholeAndNeverThroughALink(t *testing.T) {
	dir := t.TempDir()
	path, target := filepath.Join(dir, "file"), filepath.Join(dir, "target")
	must(t, errors.Join(os.WriteFile(target, []byte("precious"), 0o600), os.Symlink(target, path+".tmp")))
	must(t, writePlain(path, []byte("one")))
	must(t, writePlain(path, []byte("two")))
	if string(value(os.ReadFile(path))(t)) != "two" || string(value(os.ReadFile(target))(t)) != "precious" {
		t.Fatal("wrong content, or the link was followed")
	}
	if !missing(path + ".tmp") {
		t.Fatal("the temporary file is left")
	}
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	if writePlain(filepath.Join(dir, "d"), []byte("x")) == nil || !missing(filepath.Join(dir, "d.tmp")) {
		t.Fatal("a directory was replaced, or the temporary file is left")
	}
}

// A file that is exchanged between the check and the use is not used.
func TestFileExchangedWhileItIsCheckedIsRefused(t *testing.T) {
	dir := stateDir(t)
	path := filepath.Join(dir, identityName)
	other := value(os.ReadFile(path))(t)
	o := Options{Verify: func(_ context.Context, checked string) error {
		if checked == path {
			must(t, errors.Join(os.WriteFile(path+".evil", other, 0o600), os.Rename(path+".evil", path)))
		}
		return nil
	}}
	f := openIdentity(t, dir, o)
	wantError(t, f.Damaged(), ErrUnsafe)
}
