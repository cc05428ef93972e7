//go:build unix

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The rows of the fault catalogue (firmware-notes/faults.md) that need no other
// machinery; ST9 to ST14 stand in the files of theirs.

func wantWhole(t testing.TB, dir string, o Options) {
	t.Helper()
	f := value(OpenIdentity(t.Context(), dir, o))(t)
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	must(t, f.Close())
}

func TestST1_EmptyCacheIsRebuilt(t *testing.T) {
	dir := stateDir(t)
	must(t, os.Truncate(filepath.Join(dir, cacheName), 0))
	c := openCache(t, dir, Options{Verify: childVerify})
	if h := c.Health(); h.Mode != ModeDisk || !strings.Contains(h.Recovered, "empty") || len(c.Tokens()) != 0 {
		t.Fatalf("health %+v", h)
	}
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 2)}})
}

// everyPage lays the state directory with each page of a file spoiled in turn.
func everyPage(t *testing.T, name string, spoil func(content []byte, at int) []byte, judge func(dir string, spoiled []byte)) {
	files := contents(t, stateDir(t))
	for at := 0; at < len(files[name]); at += pageSize {
		copied := map[string]string{}
		for k, v := range files {
			copied[k] = v
		}
		spoiled := spoil([]byte(files[name]), at)
		copied[name] = string(spoiled)
		dir := lay(t, copied)
		judge(dir, spoiled)
		must(t, os.RemoveAll(dir))
	}
}

func judgeSpoiltIdentity(t *testing.T) func(string, []byte) {
	return func(dir string, spoiled []byte) {
		f := value(OpenIdentity(t.Context(), dir, Options{Verify: childVerify}))(t)
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
		recovered := f.Health().Recovered != ""
		must(t, f.Close())
		kept := asides(dir, identityName+".damaged-")
		if recovered && (len(kept) != 1 || !bytes.Equal(value(os.ReadFile(kept[0]))(t), spoiled)) {
			t.Fatal("the damaged file was not kept as it was")
		}
	}
}

func judgeSpoiltCache(t *testing.T) func(string, []byte) {
	return func(dir string, spoiled []byte) {
		c := value(OpenCache(t.Context(), dir, Options{Verify: childVerify}))(t)
		for _, rec := range c.Tokens() {
			if !reflect.DeepEqual(rec, token("a", "r", 1)) {
				t.Fatalf("wrong token %.80v", rec)
			}
		}
		if h := c.Health(); h.Mode != ModeDisk {
			t.Fatalf("health %+v", h)
		} else if h.Recovered != "" {
			kept := asides(dir, cacheName+".corrupt-")
			if len(kept) != 1 || !bytes.Equal(value(os.ReadFile(kept[0]))(t), spoiled) {
				t.Fatal("the damaged cache was not kept as it was")
			}
		}
		must(t, c.Close())
	}
}

func TestST2_FileCutAtAnyPageIsFound(t *testing.T) {
	cut := func(content []byte, at int) []byte { return content[:at] }
	everyPage(t, identityName, cut, judgeSpoiltIdentity(t))
	everyPage(t, cacheName, cut, judgeSpoiltCache(t))
}

func TestST3_AnyZeroedPageIsFoundOrHarmless(t *testing.T) {
	zero := func(content []byte, at int) []byte { clear(content[at : at+pageSize]); return content }
	everyPage(t, identityName, zero, judgeSpoiltIdentity(t))
	everyPage(t, cacheName, zero, judgeSpoiltCache(t))
}

func TestST4_AnyFlippedBitIsFoundOrHarmless(t *testing.T) {
	files := contents(t, stateDir(t))
	r := rand.New(rand.NewPCG(4, 4))
	for range *damageCases / share {
		copied := map[string]string{}
		for k, v := range files {
			copied[k] = v
		}
		copied[identityName] = flip(r, copied[identityName], 1)
		copied[cacheName] = flip(r, copied[cacheName], 1)
		dir := lay(t, copied)
		f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
		c := value(OpenCache(t.Context(), dir, Options{}))(t)
		for _, rec := range c.Tokens() {
			if !reflect.DeepEqual(rec, token("a", "r", 1)) {
				t.Fatalf("wrong token %.80v", rec)
			}
		}
		must(t, errors.Join(c.Close(), f.Close(), os.RemoveAll(dir)))
	}
}

func TestST5_ForeignFileIsNamedAndItsBytesAreKept(t *testing.T) {
	for name, content := range map[string]string{
		"text": strings.Repeat("diary ", 5000), "short text": "diary", "random": flip(rand.New(rand.NewPCG(5, 5)), strings.Repeat("\x00", 40000), 90000),
		"another program's database": string(value(os.ReadFile(foreignDatabase(t)))(t)),
	} {
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			must(t, os.WriteFile(filepath.Join(dir, cacheName), []byte(content), 0o600))
			c := openCache(t, dir, Options{Verify: childVerify})
			if h := c.Health(); !strings.Contains(h.Recovered, "not a Postern database") {
				t.Errorf("cache: recovered %q", h.Recovered)
			}
			if kept := asides(dir, cacheName+".corrupt-"); len(kept) != 1 || string(value(os.ReadFile(kept[0]))(t)) != content {
				t.Errorf("cache: kept %v", kept)
			}
			must(t, errors.Join(os.Remove(filepath.Join(dir, identityName+".bak")), os.WriteFile(filepath.Join(dir, identityName), []byte(content), 0o600)))
			f := openIdentity(t, dir, Options{Verify: childVerify})
			wantError(t, f.Damaged(), ErrForeign)
			if string(value(os.ReadFile(filepath.Join(dir, identityName)))(t)) != content {
				t.Error("identity: the foreign file was changed")
			}
		})
	}
}

func TestST6_NewerMajorIsRefusedUntouchedNamingBothVersions(t *testing.T) {
	dir := scratch(t)
	newer := Options{testOnlySchema: schema{2, 1}}
	f := value(OpenIdentity(t.Context(), dir, newer))(t)
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }))
	c := value(OpenCache(t.Context(), dir, newer))(t)
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	must(t, errors.Join(c.Close(), f.Close()))
	before := contents(t, dir)

	f = openIdentity(t, dir, Options{Verify: childVerify})
	wantError(t, f.Damaged(), ErrNewer)
	wantError(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }), ErrNewer)
	c = openCache(t, dir, Options{Verify: childVerify})
	c.Stage(Change{PutTokens: []TokenRecord{token("b", "r", 1)}})
	wantError(t, c.Commit(t.Context()), ErrNewer)
	for _, text := range []string{f.Damaged().Error(), c.Health().Problem} {
		if !strings.Contains(text, "2.1") || !strings.Contains(text, "1.x") {
			t.Errorf("%q does not name both versions", text)
		}
	}
	wantTokens(t, c, token("b", "r", 1)) // served from memory
	if !reflect.DeepEqual(contents(t, dir), before) {
		t.Fatal("files were changed")
	}
}

func TestST7_LinkFolderFIFOOrDeviceAtAPathIsRefusedByName(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	for kind, plant := range map[string]func(path string) error{
		"symbolic link": func(path string) error {
			return errors.Join(os.WriteFile(target, []byte("precious"), 0o600), os.Symlink(target, path))
		},
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"device":    func(path string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|5) },
	} {
		for _, name := range []string{identityName, identityName + ".bak", markerName, keyName, cacheName} {
			t.Run(kind+" "+name, func(t *testing.T) {
				dir := stateDir(t)
				path := filepath.Join(dir, name)
				must(t, os.Remove(path))
				if err := plant(path); errors.Is(err, syscall.EPERM) {
					t.Skip("not run: no mknod of a device here: it needs root, outside of a user namespace")
				} else if err != nil {
					t.Fatal(err)
				}
				f := openIdentity(t, dir, Options{})
				c := openCache(t, dir, Options{})
				c.Stage(Change{PutTokens: []TokenRecord{token("n", "r", 1)}})
				if err := c.Commit(t.Context()); name == cacheName {
					wantError(t, err, ErrUnsafe)
				}
				switch err := f.Damaged(); {
				case name == cacheName || name == identityName+".bak":
					sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
				case !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), path):
					t.Errorf("identity: %v", err)
				}
				if err := f.Check(t.Context()); name == identityName+".bak" && !errors.Is(err, ErrUnsafe) && !strings.Contains(fmt.Sprint(err), kind) {
					t.Errorf("check: %v", err)
				}
				if info := value(os.Lstat(path))(t); typeName(info.Mode()) != kind {
					t.Errorf("what stood there was replaced by a %s", typeName(info.Mode()))
				}
				if kind == "symbolic link" && string(value(os.ReadFile(target))(t)) != "precious" {
					t.Error("the target was changed")
				}
			})
		}
	}
}

func TestST8_SecondInstanceIsToldWhoHoldsTheLock(t *testing.T) {
	dir := stateDir(t)
	cmd := as(t.Context(), "holder", dir)
	stdin := value(cmd.StdinPipe())(t)
	out := value(lines(cmd))(t)
	if !out.Scan() || out.Text() != "holding" {
		t.Fatalf("holder said %q", out.Text())
	}
	o := Options{Holder: func(string) string { return fmt.Sprintf("pid %d (postern)", cmd.Process.Pid) }, Verify: childVerify}
	start := time.Now()
	_, err := OpenIdentity(t.Context(), dir, o)
	_, err2 := OpenCache(t.Context(), dir, o)
	for _, err := range []error{err, err2} {
		wantError(t, err, ErrLocked)
		if !strings.Contains(err.Error(), fmt.Sprintf("pid %d", cmd.Process.Pid)) || !strings.Contains(FixOf(err), "control socket") {
			t.Errorf("%v; fix: %s", err, FixOf(err))
		}
	}
	t.Logf("both refusals took %s", time.Since(start))
	_, err = io.WriteString(stdin, "x")
	must(t, errors.Join(err, cmd.Wait()))
	wantWhole(t, dir, Options{})
}

// The file's own lock holds too, against what does not know our lock file.
func TestST8_FileThatAnotherProgramHoldsIsNotDamaged(t *testing.T) {
	dir := stateDir(t)
	h := value(openHandle(t.Context(), filepath.Join(dir, identityName), Options{}.filled(), false))(t)
	_, err := OpenIdentity(t.Context(), dir, Options{Verify: childVerify})
	wantError(t, err, ErrLocked)
	must(t, h.close(false))
	wantWhole(t, dir, Options{})
}

func TestST15_DeletedDatabasesComeBack(t *testing.T) {
	dir := stateDir(t)
	f, c := openIdentity(t, dir, Options{}), openCache(t, dir, Options{})
	must(t, errors.Join(os.Remove(filepath.Join(dir, identityName)), os.Remove(filepath.Join(dir, cacheName))))
	must(t, errors.Join(f.Check(t.Context()), c.Check(t.Context())))
	for _, h := range []Health{f.Health(), c.Health()} {
		if !strings.Contains(h.Recovered, "deleted") || h.Mode != ModeDisk {
			t.Errorf("health %+v", h)
		}
	}
	must(t, errors.Join(f.Close(), c.Close()))
	wantWhole(t, dir, Options{})
	c = openCache(t, dir, Options{})
	wantTokens(t, c, token("a", "r", 1))
	if len(audit(t, c, 0)) != 3 {
		t.Error("the audit ring did not come back")
	}
}

func TestST16_NothingIsWrittenToAStrangersDirectory(t *testing.T) {
	parent := scratch(t)
	dir, away := filepath.Join(parent, "state"), filepath.Join(parent, "away")
	must(t, os.Rename(stateDir(t), dir))
	f, c := openIdentity(t, dir, Options{}), openCache(t, dir, Options{})
	must(t, os.Rename(dir, away))
	moved := contents(t, away)
	for _, stranger := range []bool{false, true} {
		if stranger {
			must(t, os.Mkdir(dir, 0o700))
		}
		c.Stage(Change{PutTokens: []TokenRecord{token("b", "r", 1)}})
		for _, err := range []error{
			f.Check(t.Context()), c.Check(t.Context()), c.Commit(t.Context()), f.Destroy(),
			f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 2)) }),
		} {
			wantError(t, err, ErrDetached)
		}
		if h := c.Health(); stranger && strings.Count(h.Problem, "inode") != 2 || h.Fix != "ls -ldi "+dir+"   # put the directory back, or restart the agent" {
			t.Errorf("%q does not name both inodes, or %q no command", h.Problem, h.Fix)
		}
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	}
	if len(contents(t, dir)) != 0 || !reflect.DeepEqual(contents(t, away), moved) {
		t.Fatal("something was written")
	}
	must(t, errors.Join(os.Remove(dir), os.Rename(away, dir), f.Check(t.Context()), c.Check(t.Context())))
	if h := c.Health(); h.Problem != "" || h.Mode != ModeDisk {
		t.Fatalf("health %+v", h)
	}
	wantTokens(t, c, token("a", "r", 1), token("b", "r", 1))
}

// ST17: the injected OpenFile decides on access; its refusal comes through, the
// file is not touched, and the identity is back when access is right again.
func TestST17_UnsafeAccessIsDamagedUntouchedAndHeals(t *testing.T) {
	dir := stateDir(t)
	drift := errors.New("mode is 0644, want 0600")
	for _, name := range []string{identityName, keyName} {
		unsafe := true
		o := Options{OpenFile: func(path string, flag int) (*os.File, error) {
			if unsafe && filepath.Base(path) == name {
				return nil, fmt.Errorf("%s: %w", path, drift)
			}
			return openPlain(path, flag)
		}}
		before := contents(t, dir)
		f := value(OpenIdentity(t.Context(), dir, o))(t)
		wantError(t, f.Damaged(), drift)
		wantError(t, f.Check(t.Context()), drift)
		if !reflect.DeepEqual(contents(t, dir), before) {
			t.Fatal("files were changed")
		}
		unsafe = false
		must(t, f.Check(t.Context()))
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
		must(t, f.Close())
	}
}

func TestST19_NetworkFileSystemIsRefusedNamingTheOverride(t *testing.T) {
	dir := t.TempDir()
	remote := Options{FileSystem: func(string) (FileSystem, error) { return FileSystem{Type: "nfs4", Remote: true}, nil }}
	_, err1 := OpenIdentity(t.Context(), dir, remote)
	_, err2 := OpenCache(t.Context(), dir, remote)
	_, err3 := Open(t.Context(), filepath.Join(dir, "authority.db"), testKey(t), remote)
	for _, err := range []error{err1, err2, err3} {
		wantError(t, err, ErrRemote)
		if !strings.Contains(err.Error(), "nfs4") || FixOf(err) == "" {
			t.Errorf("%v; fix %q", err, FixOf(err))
		}
	}
	if len(contents(t, dir)) != 0 {
		t.Error("files were made")
	}
	remote.AllowRemote = true
	must(t, value(OpenIdentity(t.Context(), dir, remote))(t).Close())
	unknown := Options{FileSystem: func(string) (FileSystem, error) { return FileSystem{}, errors.New("statfs") }}
	must(t, value(OpenIdentity(t.Context(), dir, unknown))(t).Close())
}

// A database that is cut short while it is mapped is a fault at the next
// access: an error, never the end of the process, and the file comes back.
func TestFileCutShortUnderTheRunningProcessIsSurvived(t *testing.T) {
	dir := scratch(t)
	path := filepath.Join(dir, "authority.db")
	d := openDB(t, path, Options{})
	for i := range 50 {
		put(t, d, "b", fmt.Sprint(i), thing{N: i, S: strings.Repeat("s", 2000)})
	}
	must(t, d.Backup(t.Context()))
	must(t, os.Truncate(path, 8192))
	err := d.View(func(tx *Tx) error { return Each(tx, "b", func(string, thing) error { return nil }) })
	wantError(t, err, ErrDamaged)
	must(t, d.Check(t.Context()))
	if got := value(get(d, "b", "49"))(t); got.N != 49 {
		t.Fatalf("got %+v", got)
	}
	put(t, d, "b", "49", thing{N: 50})
}

func TestIdentityCutShortUnderTheRunningProcessIsRewrittenFromMemory(t *testing.T) {
	dir := stateDir(t)
	f := openIdentity(t, dir, Options{})
	must(t, os.Truncate(filepath.Join(dir, identityName), 4096))
	err := f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("b", 2)) })
	if err != nil { // the first one may only find out
		must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("b", 2)) }))
	}
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 2))
	must(t, f.Close())
	f = openIdentity(t, dir, Options{})
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 2))
}

// A check that cannot be made (no memory for a child) is no verdict: nothing
// is set aside, and the next Check opens the files.
func TestCheckThatCannotBeMadeIsNoVerdict(t *testing.T) {
	dir := stateDir(t)
	broken := true
	o := Options{Verify: func(ctx context.Context, path string) error {
		if broken {
			return syscall.EAGAIN
		}
		return childVerify(ctx, path)
	}}
	before := contents(t, dir)
	f, c := openIdentity(t, dir, o), openCache(t, dir, o)
	wantError(t, f.Damaged(), syscall.EAGAIN)
	if c.Health().Mode != ModeMemory || !reflect.DeepEqual(contents(t, dir), before) {
		t.Fatalf("health %+v", c.Health())
	}
	broken = false
	must(t, errors.Join(f.Check(t.Context()), c.Check(t.Context())))
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	wantTokens(t, c, token("a", "r", 1))
}

// A new file is checked before it gets its name.
func TestNewFileThatFailsItsCheckIsNotUsed(t *testing.T) {
	dir := scratch(t)
	bad := true
	o := Options{Verify: func(_ context.Context, path string) error {
		if bad && strings.HasSuffix(path, identityName+".new") {
			return fmt.Errorf("page 7: %w", ErrDamaged)
		}
		return nil
	}}
	f := openIdentity(t, dir, o)
	update := func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }
	wantError(t, f.Update(update), ErrDamaged)
	if f.Exists() || !missing(filepath.Join(dir, identityName)) || !missing(filepath.Join(dir, identityName+".new")) {
		t.Fatal("the bad file was used, or is left")
	}
	bad = false
	must(t, f.Update(update))
	sameIdentities(t, f)
}

// A busy machine is no damage; what hangs three times in a row is.
func TestCheckThatHangsIsTriedAgainBeforeItIsDamage(t *testing.T) {
	dir := stateDir(t)
	hangs := 0
	o := Options{Verify: func(_ context.Context, path string) error {
		if base := filepath.Base(path); base == cacheName || base == identityName {
			hangs++
			return fmt.Errorf("child: %w", context.DeadlineExceeded) // what Child gives after 10 s
		}
		return nil
	}}
	before := contents(t, dir)
	f, c := openIdentity(t, dir, o), openCache(t, dir, o)
	if f.Damaged() == nil || c.Health().Mode != ModeMemory || hangs != 2 {
		t.Fatalf("identity %v, cache %+v, %d hangs", f.Damaged(), c.Health(), hangs)
	}
	if f.Check(t.Context()) == nil || c.Check(t.Context()) == nil || !reflect.DeepEqual(contents(t, dir), before) {
		t.Fatal("the second hang was already damage")
	}
	must(t, errors.Join(f.Check(t.Context()), c.Check(t.Context())))
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	if h := c.Health(); h.Mode != ModeDisk || !strings.Contains(h.Recovered, "10 s 3 times") {
		t.Fatalf("health %+v", h)
	}
	if !strings.Contains(f.Health().Recovered, "backup copy") {
		t.Fatalf("health %+v", f.Health())
	}
}

// The agent is told to stop while it starts: that is no verdict either.
func TestCheckThatIsCancelledChangesNothing(t *testing.T) {
	dir := stateDir(t)
	before := contents(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{Verify: func(ctx context.Context, path string) error {
		cancel()
		return childVerify(ctx, path)
	}}
	_, err := OpenIdentity(ctx, dir, o)
	wantError(t, err, context.Canceled)
	_, err = OpenCache(ctx, dir, o)
	wantError(t, err, context.Canceled)
	if !reflect.DeepEqual(contents(t, dir), before) {
		t.Fatal("files were changed")
	}
}

func foreignDatabase(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "foreign.db")
	rewriteRaw(t, path, func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("theirs"))
		return errors.Join(err, b.Put([]byte("k"), []byte("v")))
	})
	return path
}
