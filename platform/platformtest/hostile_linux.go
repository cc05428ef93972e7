package platformtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/platform"
)

// Stranger is an account and a group that are nobody's.
const Stranger = 54321

// Reader is the gid of the readers' group that RunHostile expects of a host:
// nobody's if we are root, who may give files to any group, else our own.
func Reader() int {
	if os.Geteuid() == 0 {
		return 43210
	}
	return os.Getegid()
}

// RunHostile is what a Linux host must withstand. The host's group must be
// Reader. Changing owners needs root: without it those tests say that they
// did not run.
func RunHostile(t *testing.T, open func(t *testing.T) platform.Host) {
	for _, test := range []struct {
		name string
		root bool
		run  func(t *testing.T, s suite)
	}{
		{"ModesAreJudgedBitByBit", false, modes},
		{"ParentsThatOthersCanWriteAreRefused", false, parents},
		{"ParentsThatAreLinksAreRefused", false, parentLinks},
		{"FilesWithTwoLinksAreRefused", false, hardLinks},
		{"OnlyFilesAndDirectoriesAreUsed", false, oddTypes},
		{"AccessControlListsHiddenByTheModeAreSeen", false, hiddenACL},
		{"InheritedAccessControlListsDoNotReachOurFiles", false, inheritedACL},
		{"AccessControlListsMayServeTheReadersAlone", false, groupACL},
		{"OwnersAreUsOrRoot", true, owners},
		{"ParentsBelongToUsOrRoot", true, parentOwners},
		{"DevicesAreNeverOpened", true, devices},
		{"ReadersGroupIsTheOnlyGroup", true, groups},
		{"FilesOfOthersStay", true, foreignFiles},
		{"MountOverTheDirectoryIsSeen", true, mountedOver},
		{"LiteralPathIsALinkOfRoot", true, literalLink},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.root && os.Geteuid() != 0 {
				t.Skip("not run: needs root to change owners, devices and mounts")
			}
			h := open(t)
			test.run(t, suite{h, filepath.Dir(h.Dirs().State)})
		})
	}
}

// file makes a private file through the host.
func (s suite) file(t *testing.T) string {
	t.Helper()
	path := s.path("file")
	must(t, s.WriteFile(path, []byte("secret"), platform.Private))
	return path
}

func modes(t *testing.T, s suite) {
	file, dir := s.file(t), s.path("dir")
	must(t, s.Secure(dir, platform.Private))
	for bit := range 9 {
		mode := uint32(1) << bit
		private := mode&0o700 != 0
		public := mode&0o755 != 0
		for _, path := range []string{file, dir} {
			must(t, unix.Chmod(path, 0o600|mode))
			if err := s.Check(path, platform.Private); (err == nil) != private {
				t.Errorf("private %s with mode %04o: %v", path, 0o600|mode, err)
			}
			if err := s.Check(path, platform.Public); (err == nil) != public {
				t.Errorf("public %s with mode %04o: %v", path, 0o600|mode, err)
			}
		}
	}
}

func parents(t *testing.T, s suite) {
	for i, mode := range []uint32{0o775, 0o757, 0o777, 0o1777} {
		parent := s.path(fmt.Sprintf("parent-%d", i))
		must(t, s.Secure(parent, platform.Public))
		child := filepath.Join(parent, "child")
		must(t, s.Secure(child, platform.Private))
		file := filepath.Join(child, "file")
		must(t, s.WriteFile(file, nil, platform.Private))
		must(t, unix.Chmod(parent, mode))
		access := wantAccess(t, s.Check(file, platform.Private))
		cure := "chmod" // but a shared directory must stay what it is
		if mode&0o1000 != 0 {
			cure = "mkdir -m 0700"
		}
		if access.Path != parent || !strings.Contains(access.Fix, cure) {
			t.Errorf("mode %04o: %+v does not name the parent and a fix", mode, access)
		}
		wantAccess(t, s.Secure(child, platform.Private))
		wantAccess(t, s.Secure(filepath.Join(parent, "new"), platform.Private))
		wantAccess(t, s.WriteFile(filepath.Join(parent, "new"), nil, platform.Private))
		_, err := s.OpenFile(file, os.O_RDONLY, platform.Private)
		wantAccess(t, err)
		_, err = s.OpenDir(child, platform.Private)
		wantAccess(t, err)
	}
}

func parentLinks(t *testing.T, s suite) {
	must(t, s.Secure(s.path("real"), platform.Private))
	must(t, s.WriteFile(s.path("real", "file"), nil, platform.Private))
	must(t, os.Symlink("real", s.path("link")))
	access := wantAccess(t, s.Check(s.path("link", "file"), platform.Private))
	if !strings.Contains(access.Problem, "symbolic link") {
		t.Errorf("%+v does not say that it is a link", access)
	}
	wantAccess(t, s.WriteFile(s.path("link", "new"), nil, platform.Private))
	wantAccess(t, s.Secure(s.path("link", "dir"), platform.Private))
	// A magic link of /proc leads anywhere without being a path.
	d, err := os.Open(s.path("real"))
	must(t, err)
	defer func() { _ = d.Close() }() // read only
	wantAccess(t, s.Check(fmt.Sprintf("/proc/self/fd/%d/file", d.Fd()), platform.Private))
}

func hardLinks(t *testing.T, s suite) {
	file := s.file(t)
	must(t, os.Link(file, s.path("other")))
	access := wantAccess(t, s.Check(file, platform.Private))
	if !strings.Contains(access.Problem, "links") {
		t.Errorf("%+v does not speak of links", access)
	}
	_, err := s.OpenFile(file, os.O_RDWR, platform.Private)
	wantAccess(t, err)
	wantAccess(t, s.WriteFile(file, []byte("new"), platform.Private))
	wantContent(t, s.path("other"), "secret")

	dir, d := s.held(t)
	must(t, d.Create("a.key", nil))
	must(t, os.Link(filepath.Join(dir, "a.key"), s.path("a second name")))
	entries, err := d.Names()
	must(t, err)
	if len(entries) != 1 || entries[0].Ours {
		t.Errorf("entries are %+v, want one that is not ours alone", entries)
	}
}

// oddTypes also proves that a fifo without a writer does not block.
func oddTypes(t *testing.T, s suite) {
	must(t, unix.Mkfifo(s.path("fifo"), 0o600))
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Bind(sock, &unix.SockaddrUnix{Name: s.path("socket")}))
	must(t, unix.Close(sock))
	for _, name := range []string{"fifo", "socket"} {
		path := s.path(name)
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREATE} {
			_, err := s.OpenFile(path, flag, platform.Private)
			if access := wantAccess(t, err); !strings.Contains(access.Problem, name) {
				t.Errorf("%+v does not say that it is a %s", access, name)
			}
		}
		wantAccess(t, s.Check(path, platform.Private))
		wantAccess(t, s.Secure(path, platform.Private))
		wantAccess(t, s.WriteFile(path, nil, platform.Private))
		_, err := s.OpenDir(path, platform.Private)
		wantAccess(t, err)
		wantAccess(t, s.Check(filepath.Join(path, "below"), platform.Private))
	}
	_, err = s.OpenDir(s.file(t), platform.Private)
	wantAccess(t, err)
}

// Tags of ACL entries (acl(5)), and the id of those that have none.
const (
	tagUser  = 2
	tagGroup = 8
	noID     = 1<<32 - 1
)

// acl is a list in the form of the extended attribute: everything for the
// owner, one named entry, nothing for group and others.
func acl(tag uint16, id uint32, perm, mask uint16) []byte {
	type entry struct {
		tag, perm uint16
		id        uint32
	}
	entries := []entry{{1, 7, noID}, {4, 0, noID}, {16, mask, noID}, {32, 0, noID}}
	at := 1 // the kernel wants them in the order of their tags
	if tag == tagGroup {
		at = 2
	}
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range slices.Insert(entries, at, entry{tag, perm, id}) {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func setACL(t *testing.T, path, attr string, value []byte) {
	t.Helper()
	must(t, unix.Setxattr(path, "system.posix_acl_"+attr, value, 0))
}

// hiddenACL: the directory's mode reads 0750 as it should, and a stranger gets
// in by the list.
func hiddenACL(t *testing.T, s suite) {
	dir, d := s.held(t)
	must(t, d.Check())
	setACL(t, dir, "access", acl(tagUser, Stranger, 5, 5))
	info, err := os.Stat(dir)
	must(t, err)
	if info.Mode().Perm() != 0o750 {
		t.Fatalf("mode is %04o: the list shows, this test proves nothing", info.Mode().Perm())
	}
	access := wantAccess(t, d.Check())
	if !strings.Contains(access.Readers, fmt.Sprint(Stranger)) || !strings.Contains(access.Fix, "setfacl -b") {
		t.Errorf("%+v does not name the reader and the cure", access)
	}
	wantAccess(t, s.Secure(dir, platform.TokenReaders))

	file := s.file(t)
	setACL(t, file, "access", acl(tagUser, Stranger, 6, 0)) // asleep behind the mask, awake at the next chmod
	access = wantAccess(t, s.Check(file, platform.Private))
	if access.Readers != "" {
		t.Errorf("%+v names readers behind a closed mask", access)
	}
	_, err = s.OpenFile(file, os.O_RDWR, platform.Private)
	wantAccess(t, err)
}

func inheritedACL(t *testing.T, s suite) {
	setACL(t, s.play, "default", acl(tagUser, Stranger, 7, 7))
	for _, a := range accesses {
		dir := s.path("dir-" + a.String())
		must(t, s.Secure(dir, a))
		must(t, s.WriteFile(s.path("file-"+a.String()), []byte("x"), a))
		f, err := s.OpenFile(s.path("open-"+a.String()), os.O_RDWR|os.O_CREATE, a)
		must(t, err)
		must(t, f.Close())
		for _, path := range []string{dir, s.path("file-" + a.String()), s.path("open-" + a.String())} {
			must(t, s.Check(path, a))
			_, err := unix.Getxattr(path, "system.posix_acl_access", nil)
			wantIs(t, err, unix.ENODATA)
		}
	}
	dir, d := s.held(t)
	setACL(t, dir, "default", acl(tagUser, Stranger, 7, 7))
	wantAccess(t, d.Check())
}

// groupACL: a second way to let the readers in, which is known, and a group
// that may write, which is not.
func groupACL(t *testing.T, s suite) {
	dir := s.path("dir")
	must(t, s.Secure(dir, platform.Private))
	setACL(t, dir, "access", acl(tagGroup, uint32(Reader()), 5, 5))
	must(t, s.Check(dir, platform.TokenReaders))
	wantAccess(t, s.Check(dir, platform.Private))
	for _, perm := range []uint16{2, 7} {
		setACL(t, dir, "access", acl(tagGroup, uint32(Reader()), perm, 7))
		for _, a := range accesses {
			wantAccess(t, s.Check(dir, a))
		}
	}
}

func owners(t *testing.T, s suite) {
	file, dir := s.file(t), s.path("dir")
	must(t, s.Secure(dir, platform.Private))
	for _, path := range []string{file, dir} {
		must(t, os.Chown(path, Stranger, 0))
		for _, a := range accesses {
			access := wantAccess(t, s.Check(path, a))
			if !strings.Contains(access.Problem, fmt.Sprint(Stranger)) || !strings.Contains(access.Fix, "chown") {
				t.Errorf("%+v does not name the owner and the cure", access)
			}
		}
	}
	_, err := s.OpenFile(file, os.O_RDWR, platform.Private)
	wantAccess(t, err)
	_, err = s.OpenDir(dir, platform.Private)
	wantAccess(t, err)
	wantAccess(t, s.WriteFile(file, nil, platform.Private))
}

func parentOwners(t *testing.T, s suite) {
	must(t, s.Secure(s.path("dir"), platform.Private))
	must(t, s.WriteFile(s.path("dir", "file"), nil, platform.Private))
	must(t, os.Chown(s.path("dir"), Stranger, 0))
	wantAccess(t, s.Check(s.path("dir", "file"), platform.Private))
	wantAccess(t, s.WriteFile(s.path("dir", "new"), nil, platform.Private))
	if _, err := os.Lstat(s.path("dir", "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made there: %v", err)
	}
}

func devices(t *testing.T, s suite) {
	path := s.path("device")
	NeedFeature(t, Devices)
	must(t, unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	_, err := s.OpenFile(path, os.O_RDWR, platform.Private)
	if access := wantAccess(t, err); !strings.Contains(access.Problem, "device") {
		t.Errorf("%+v does not say that it is a device", access)
	}
	wantAccess(t, s.Check(path, platform.Private))
}

func groups(t *testing.T, s suite) {
	dir, d := s.held(t)
	must(t, d.Create("a.key", []byte("x")))
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "a.key"), &st))
	if st.Gid != uint32(Reader()) || st.Mode&0o777 != 0o440 {
		t.Errorf("challenge file has group %d, mode %04o, want %d, 0440", st.Gid, st.Mode&0o777, Reader())
	}
	must(t, os.Chown(dir, 0, Stranger))
	access := wantAccess(t, d.Check())
	if !strings.Contains(access.Readers, fmt.Sprint(Stranger)) {
		t.Errorf("%+v does not name the foreign group", access)
	}
	must(t, os.Chown(dir, 0, Reader()))
	must(t, d.Check())
	must(t, os.Chmod(dir, 0o700))
	if access := wantAccess(t, d.Check()); access.Readers != "" || !strings.Contains(access.Fix, "chmod 0750") {
		t.Errorf("%+v: readers are shut out, which is no exposure but must be cured", access)
	}
}

func foreignFiles(t *testing.T, s suite) {
	dir, d := s.held(t)
	must(t, d.Create("a.key", nil))
	must(t, os.Chown(filepath.Join(dir, "a.key"), Stranger, 0))
	entries, err := d.Names()
	must(t, err)
	if len(entries) != 1 || entries[0].Ours {
		t.Errorf("entries are %+v, want one of a stranger", entries)
	}
	wantAccess(t, d.Remove("a.key"))
	if _, err := os.Lstat(filepath.Join(dir, "a.key")); err != nil {
		t.Error(err)
	}
}

// literalLink: the way from the literal path belongs to the directory.
func literalLink(t *testing.T, s suite) {
	dirs := s.Dirs()
	must(t, s.Secure(dirs.Runtime, platform.Public))
	must(t, s.Secure(dirs.Tokens, platform.TokenReaders))
	relink := func(target string) {
		t.Helper()
		must(t, os.Symlink(target, dirs.TokensLiteral+".new"))
		must(t, os.Rename(dirs.TokensLiteral+".new", dirs.TokensLiteral))
	}
	relink(dirs.Tokens)
	for _, path := range []string{dirs.Tokens, dirs.TokensLiteral} {
		d, err := s.OpenDir(path, platform.TokenReaders)
		must(t, err)
		defer func() { must(t, d.Close()) }()
		must(t, d.Check())
		must(t, s.Check(path, platform.TokenReaders))
		must(t, d.Create("a.key", []byte("x")))
		wantContent(t, filepath.Join(dirs.Tokens, "a.key"), "x")
		must(t, d.Remove("a.key"))

		must(t, os.Remove(dirs.TokensLiteral))
		if access := wantAccess(t, d.Check()); access.Path != dirs.TokensLiteral || access.Fix == "" {
			t.Errorf("%+v does not name the literal path and the cure", access)
		}
		must(t, s.Secure(s.path("elsewhere"), platform.TokenReaders))
		relink(s.path("elsewhere"))
		wantAccess(t, d.Check())
		wantAccess(t, d.Create("b.key", []byte("x")))
		relink("run/tokens") // relative to the link's own directory
		must(t, d.Check())

		must(t, os.Lchown(dirs.TokensLiteral, Stranger, Stranger))
		wantAccess(t, d.Check())
		_, err = s.OpenDir(dirs.TokensLiteral, platform.TokenReaders)
		wantAccess(t, err)
		relink(dirs.Tokens)
	}
}
