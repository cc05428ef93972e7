//go:build linux

package qemu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Cache is the folder of everything that was fetched:
// $XDG_CACHE_HOME/postern/qemu or ~/.cache/postern/qemu. It is made if it is missing.
func Cache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "postern", "qemu")
	return dir, os.MkdirAll(dir, 0o755)
}

// apt is a package root of its own for one architecture: the machine's
// sources and keys are read, its lists, architectures and packages are not touched.
type apt struct{ dir, arch string }

// hold locks the cache against other tests' fetches.
func hold(cache string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// newApt makes the root and fetches the lists.
func newApt(ctx context.Context, cache, arch string) (*apt, error) {
	a := &apt{dir: filepath.Join(cache, "apt-"+arch), arch: arch}
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf(`#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
APT::Architecture "%[2]s";
APT::Architectures { "%[2]s"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
`, a.dir, arch)
	for name, content := range map[string]string{"apt.conf": conf, "status": ""} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	_, err := a.run(ctx, "", "apt-get", "update", "-q")
	return a, err
}

// run calls apt-get or apt-cache with the root's configuration.
func (a *apt) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	return output(ctx, dir, program, append([]string{"-c", filepath.Join(a.dir, "apt.conf")}, args...)...)
}

func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	path, err := Find(program)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, words.String())
	}
	return string(out), nil
}

// record is what apt knows about one package.
type record struct{ version, sum string }

func (a *apt) record(ctx context.Context, name string) (record, error) {
	text, err := a.run(ctx, "", "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return record{}, err
	}
	var r record
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case key == "Version" && r.version == "":
			r.version = value
		case key == "SHA256" && r.sum == "":
			r.sum = value
		}
	}
	if r.version == "" || len(r.sum) != sha256.Size*2 {
		return r, fmt.Errorf("apt has no version or SHA-256 of %s:%s", name, a.arch)
	}
	return r, nil
}

// unpack downloads exactly name, compares it with apt's SHA-256, and unpacks
// it to dir; a half-finished one has another name.
func (a *apt) unpack(ctx context.Context, name string, r record, dir string) error {
	work, err := os.MkdirTemp(a.dir, "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if _, err := a.run(ctx, work, "apt-get", "download", "-q", name+"="+r.version); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("apt-get download %s brought %d files", name, len(found))
	}
	if err := compare(found[0], r.sum); err != nil {
		return err
	}
	tree := filepath.Join(work, "tree")
	if _, err := output(ctx, "", "dpkg-deb", "-x", found[0], tree); err != nil {
		return err
	}
	if err := os.Rename(tree, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func compare(path, sum string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("%s: SHA-256 is %s, apt's record says %s", filepath.Base(path), got, sum)
	}
	return nil
}
