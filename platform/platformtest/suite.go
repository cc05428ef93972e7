package platformtest

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/platform"
)

// suite is one host under test and a directory in which its files may lie.
type suite struct {
	platform.Host
	play string
}

// Run is the contract of platform.Host. open returns a fresh host whose state
// directory lies in a directory that the test may fill; each test has its own.
func Run(t *testing.T, open func(t *testing.T) platform.Host) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s suite)
	}{
		{"SecureMakesAMissingDirectory", secureMakes},
		{"SecureNeverChangesWhatExists", secureKeeps},
		{"SecureWantsADirectoryWithAParent", secureParent},
		{"CheckTellsMissingFromUnsafe", checkMissing},
		{"WriteFileReplacesAndLeavesNothingBehind", writeReplaces},
		{"WriteFileDoesNotReplaceAnExposedFile", writeExposed},
		{"OpenFileMakesPrivateFiles", openMakes},
		{"OpenFileHonoursItsFlags", openFlags},
		{"OpenFileEmptiesOnlyWhatItVerified", openTruncates},
		{"LinksAreNeverFollowed", linksRefused},
		{"DirMakesAndRemovesFiles", dirFiles},
		{"DirRefusesNamesThatLeaveIt", dirNames},
		{"DirReportsStrangersAndLeavesThemAlone", dirStrangers},
		{"DirThatWasReplacedIsNotUsed", dirReplaced},
		{"DirThatWasRemovedIsNotUsed", dirRemoved},
		{"DirWithDriftFailsItsCheck", dirDrift},
		{"DirIsClosedOnce", dirClosed},
		{"DirServesManyAtOnce", dirConcurrent},
		{"FileSystemKnowsPathsToCome", fileSystem},
		{"ClockIsWholeAndMovesOn", clock},
		{"FingerprintShowsNoRawValue", fingerprint},
		{"KernelHasAVersion", kernel},
		{"UnknownPeersHaveNoRights", unknownPeers},
		{"ListenerTellsItsPeer", listenPeer},
		{"ListenerDoesNotShareItsAddress", listenTaken},
		{"NotifyWithoutInitSystemIsSilent", notifySilent},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := open(t)
			test.run(t, suite{h, filepath.Dir(h.Dirs().State)})
		})
	}
}

func (s suite) path(names ...string) string {
	return filepath.Join(append([]string{s.play}, names...)...)
}

// must stops the test at an error, on the caller's line.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantAccess checks that err is an AccessError that says something.
func wantAccess(t *testing.T, err error) *platform.AccessError {
	t.Helper()
	var access *platform.AccessError
	if !errors.As(err, &access) || !errors.Is(err, platform.ErrAccess) {
		t.Fatalf("got error %v, want an *AccessError", err)
	}
	if access.Path == "" || access.Problem == "" {
		t.Errorf("%#v does not say what is wrong where", access)
	}
	return access
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", path, got, want)
	}
}

var accesses = []platform.Access{platform.Private, platform.TokenReaders, platform.Public}

func secureMakes(t *testing.T, s suite) {
	for _, a := range accesses {
		dir := s.path("made-" + a.String())
		must(t, s.Secure(dir, a))
		must(t, s.Secure(dir, a))
		must(t, s.Check(dir, a))
		if a != platform.Private {
			must(t, s.Check(dir, platform.Public))
		}
	}
	entries, err := os.ReadDir(s.play)
	must(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func secureKeeps(t *testing.T, s suite) {
	dir := s.path("open")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.Chmod(dir, 0o777))
	wantAccess(t, s.Secure(dir, platform.Private))
	info, err := os.Stat(dir)
	must(t, err)
	if info.Mode().Perm() != 0o777 {
		t.Errorf("mode became %04o", info.Mode().Perm())
	}
}

func secureParent(t *testing.T, s suite) {
	wantIs(t, s.Secure(s.path("no", "where"), platform.Private), fs.ErrNotExist)
	must(t, s.WriteFile(s.path("file"), nil, platform.Private))
	wantAccess(t, s.Secure(s.path("file"), platform.Private))
}

func checkMissing(t *testing.T, s suite) {
	wantIs(t, s.Check(s.path("missing"), platform.Private), fs.ErrNotExist)
}

func writeReplaces(t *testing.T, s suite) {
	dir := s.path("dir")
	must(t, s.Secure(dir, platform.Private))
	for _, a := range accesses {
		path := filepath.Join(dir, a.String())
		for _, content := range []string{"first", "", strings.Repeat("long", 100_000)} {
			must(t, s.WriteFile(path, []byte(content), a))
			wantContent(t, path, content)
			must(t, s.Check(path, a))
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != len(accesses) {
		t.Errorf("directory holds %v, want %d files", entries, len(accesses))
	}
}

func writeExposed(t *testing.T, s suite) {
	path := s.path("key")
	must(t, s.WriteFile(path, []byte("old"), platform.Private))
	must(t, os.Chmod(path, 0o644))
	access := wantAccess(t, s.WriteFile(path, []byte("new"), platform.Private))
	if access.Readers == "" || access.Fix == "" {
		t.Errorf("%+v names neither readers nor a fix", access)
	}
	wantContent(t, path, "old")
	must(t, os.Mkdir(s.path("dir"), 0o700))
	wantAccess(t, s.WriteFile(s.path("dir"), nil, platform.Private))
}

func openMakes(t *testing.T, s suite) {
	for _, a := range accesses {
		path := s.path("file-" + a.String())
		f, err := s.OpenFile(path, os.O_RDWR|os.O_CREATE, a)
		must(t, err)
		_, err = f.WriteString("content")
		must(t, errors.Join(err, f.Close()))
		must(t, s.Check(path, a))
		f, err = s.OpenFile(path, os.O_RDONLY, a)
		must(t, err)
		must(t, f.Close())
		wantContent(t, path, "content")
	}
}

func openFlags(t *testing.T, s suite) {
	path := s.path("file")
	_, err := s.OpenFile(path, os.O_RDWR, platform.Private)
	wantIs(t, err, fs.ErrNotExist)
	f, err := s.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, platform.Private)
	must(t, err)
	must(t, f.Close())
	_, err = s.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, platform.Private)
	wantIs(t, err, fs.ErrExist)
	_, err = s.OpenFile(s.play, os.O_RDONLY, platform.Public)
	wantAccess(t, err)
}

func openTruncates(t *testing.T, s suite) {
	path := s.path("file")
	must(t, s.WriteFile(path, []byte("evidence"), platform.Private))
	must(t, os.Chmod(path, 0o666))
	_, err := s.OpenFile(path, os.O_RDWR|os.O_TRUNC, platform.Private)
	wantAccess(t, err)
	wantContent(t, path, "evidence")
	must(t, os.Chmod(path, 0o600))
	f, err := s.OpenFile(path, os.O_RDWR|os.O_TRUNC, platform.Private)
	must(t, err)
	must(t, f.Close())
	wantContent(t, path, "")
}

func linksRefused(t *testing.T, s suite) {
	target := s.path("target")
	must(t, s.WriteFile(target, []byte("untouched"), platform.Private))
	link := s.path("link")
	must(t, os.Symlink(target, link))
	wantAccess(t, s.Check(link, platform.Private))
	_, err := s.OpenFile(link, os.O_RDWR|os.O_CREATE|os.O_TRUNC, platform.Private)
	wantAccess(t, err)
	wantAccess(t, s.WriteFile(link, []byte("new"), platform.Private))
	must(t, os.Symlink(s.play, s.path("dirlink")))
	wantAccess(t, s.Secure(s.path("dirlink"), platform.Public))
	_, err = s.OpenDir(s.path("dirlink"), platform.Public)
	wantAccess(t, err)
	must(t, os.Symlink(s.path("nothing"), s.path("dangling")))
	_, err = s.OpenFile(s.path("dangling"), os.O_RDWR|os.O_CREATE, platform.Private)
	wantAccess(t, err)
	wantContent(t, target, "untouched")
	if _, err := os.Lstat(s.path("nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target of a dangling link was made: %v", err)
	}
}

func fileSystem(t *testing.T, s suite) {
	f, err := s.FileSystem(s.path("not", "yet", "there"))
	must(t, err)
	if f.Type == "" || f.Free <= 0 {
		t.Errorf("got %+v, want a type and free space", f)
	}
}

func clock(t *testing.T, s suite) {
	first := s.Clock()
	second := s.Clock()
	if first.Wall.Location() != time.UTC || first.Wall != first.Wall.Round(0) {
		t.Errorf("wall time %v is not UTC without a monotonic part", first.Wall)
	}
	if second.Boot < first.Boot || first.Boot < 0 {
		t.Errorf("boot time went from %v to %v", first.Boot, second.Boot)
	}
	if first.BootID == "" || first.BootID != second.BootID {
		t.Errorf("boot id went from %q to %q", first.BootID, second.BootID)
	}
}

func fingerprint(t *testing.T, s suite) {
	facts := s.Fingerprint()
	if !slices.IsSorted(facts) || !slices.Equal(facts, s.Fingerprint()) {
		t.Errorf("facts %q are not sorted or not stable", facts)
	}
	for _, f := range facts {
		name, digest, ok := strings.Cut(f, "=")
		if _, err := hex.DecodeString(digest); !ok || name == "" || digest == "" || err != nil {
			t.Errorf("fact %q is not name=digest", f)
		}
	}
}

func kernel(t *testing.T, s suite) {
	if v := s.Kernel(); v == "" || strings.Trim(v[:1], "0123456789") != "" || strings.ContainsAny(v, " \n\x00") {
		t.Errorf("the kernel is %q", v)
	}
}

func unknownPeers(t *testing.T, s suite) {
	if p := s.Account("no-such-user-here"); p != platform.Unknown {
		t.Errorf("a name that does not exist is %v", p)
	}
	if name := s.UserName(platform.Unknown); name != "" {
		t.Errorf("unknown has the name %q", name)
	}
	if s.Administrator(platform.Unknown) || s.Member(platform.Unknown, "root") || s.Member(s.Self(), "no-such-group-here") {
		t.Error("unknown is an administrator or member, or a missing group has members")
	}
	if !s.Administrator(s.Self()) {
		t.Error("our own account is no administrator")
	}
}

func notifySilent(t *testing.T, s suite) {
	s.Notify("READY=1\nSTATUS=Offline, 61 d left")
	if d := s.Watchdog(); d != 0 {
		t.Errorf("watchdog is %v without an init system", d)
	}
}
