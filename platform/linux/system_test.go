//go:build linux

package linux

import (
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRemoteAndVolatileFileSystemsAreNamed(t *testing.T) {
	for magic, want := range map[int64]fileSystem{
		0xef53: {name: "ext4"}, 0x6969: {name: "nfs", remote: true}, 0xff534d42: {name: "cifs", remote: true}, 0xfe534d42: {name: "smb", remote: true},
		0x1021997: {name: "9p", remote: true}, 0x65735546: {name: "fuse", remote: true}, 0x1021994: {name: "tmpfs", volatile: true},
		0x794c7630: {name: "overlay", volatile: true}, 0xf2f52010: {name: "f2fs"}, 0x24051905: {name: "ubifs"}, 0x12345: {name: "type 0x12345"},
	} {
		st := unix.Statfs_t{Bavail: 10, Bsize: 4096}
		setNumber(&st.Type, magic)
		got := describe(&st)
		if got.Type != want.name || got.Remote != want.remote || got.Volatile != want.volatile || got.Free != 40960 {
			t.Errorf("%#x is %+v, want %+v", magic, got, want)
		}
	}
	if got := describe(&unix.Statfs_t{Bavail: math.MaxUint64 / 4096, Bsize: 4096}); got.Free != math.MaxInt64 {
		t.Errorf("a huge volume has %d bytes free", got.Free)
	}
	cifs := uint32(0xff534d42)
	var st unix.Statfs_t
	setNumber(&st.Type, int64(int32(cifs)))
	if got := describe(&st); got.Type != "cifs" {
		t.Errorf("a sign-extended number is %+v", got)
	}
}

// setNumber fills a field that is as wide as the machine's word.
func setNumber[T int32 | int64](field *T, n int64) { *field = T(n) }

func TestClockCountsAsSteeredOnlyIfTheKernelSaysSo(t *testing.T) {
	for _, test := range []struct {
		state  int
		status int32
		want   bool
	}{{0, 0, true}, {0, unix.STA_PLL, true}, {5, unix.STA_UNSYNC, false}, {0, unix.STA_UNSYNC, false}, {5, 0, false}, {1, unix.STA_INS, true}} {
		if got := synchronised(test.state, test.status); got != test.want {
			t.Errorf("state %d, status %#x: %v", test.state, test.status, got)
		}
	}
}

func TestBootTimeIsTheKernelsUptime(t *testing.T) {
	before := uptime(t)
	got := testHost(t).Clock().Boot
	if after := uptime(t); got < before-10*time.Millisecond || got > after+10*time.Millisecond {
		t.Errorf("boot time is %v, uptime is %v to %v", got, before, after)
	}
}

func uptime(t *testing.T) time.Duration {
	t.Helper()
	content, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	s, err := strconv.ParseFloat(strings.Fields(string(content))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(s * float64(time.Second))
}

// board is a Raspberry Pi with an eMMC, an SD card, and a USB stick with a
// network device.
func board(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "proc/device-tree/serial-number", "10000000abcdef01\x00")
	write(t, root, "proc/cpuinfo", "processor\t: 0\nSerial\t\t: 10000000ffffffff\n")
	write(t, root, "sys/block/mmcblk0/device/type", "SD\n")
	write(t, root, "sys/block/mmcblk0/device/cid", "aaaa\n")
	write(t, root, "sys/block/mmcblk1/device/type", "MMC\n")
	write(t, root, "sys/block/mmcblk1/device/cid", "bbbb\n")
	write(t, root, "sys/class/dmi/id/board_serial", "To be filled by O.E.M.\n")
	write(t, root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	nic := func(name, device, mac, assigned string) {
		write(t, root, "sys/class/net/"+name+"/address", mac+"\n")
		write(t, root, "sys/class/net/"+name+"/addr_assign_type", assigned+"\n")
		if device != "" {
			if err := os.Symlink(device, filepath.Join(root, "sys/class/net", name, "device")); err != nil {
				t.Fatal(err)
			}
		}
	}
	nic("eth0", "../../../soc/fe300000.ethernet", "dc:a6:32:00:00:05", "0")
	nic("wlan0", "../../../soc/mmc1:0001:1", "dc:a6:32:00:00:06", "0")
	nic("usb0", "../../../usb1/1-1", "00:00:5e:00:00:01", "0")
	nic("veth0", "", "00:00:00:00:00:01", "0")
	nic("random0", "../../../soc/x", "02:00:00:00:00:01", "3")
	return root
}

func factsOf(root string) map[string]string {
	m := map[string]string{}
	for _, f := range (&Host{facts: root}).Fingerprint() {
		name, digest, _ := strings.Cut(f, "=")
		m[name] = digest
	}
	return m
}

func TestFingerprintHoldsTheBoardAndNotWhatComesAndGoes(t *testing.T) {
	root := board(t)
	first := factsOf(root)
	var names []string
	for n := range first {
		names = append(names, n)
	}
	slices.Sort(names)
	if want := []string{"board", "emmc", "mac", "machine-id"}; !slices.Equal(names, want) {
		t.Errorf("facts are %q, want %q", names, want)
	}
	for _, change := range []struct {
		file, content string
		fact          string // that changes with it; empty for none
	}{
		{"proc/device-tree/serial-number", "other\x00", "board"},
		{"proc/cpuinfo", "Serial : 5\n", ""},
		{"sys/block/mmcblk0/device/cid", "cccc\n", ""},
		{"sys/block/mmcblk1/device/cid", "dddd\n", "emmc"},
		{"sys/class/net/usb0/address", "00:00:5e:00:00:99\n", ""},
		{"sys/class/net/wlan0/address", "dc:a6:32:00:00:99\n", ""},
		{"sys/class/net/eth0/address", "dc:a6:32:00:00:04\n", "mac"},
		{"etc/machine-id", "uninitialized\n", "machine-id"},
	} {
		root := board(t)
		write(t, root, change.file, change.content)
		now := factsOf(root)
		for name, digest := range first {
			if changed := now[name] != digest; changed != (name == change.fact) {
				t.Errorf("with another %s: %s changed is %v", change.file, name, changed)
			}
		}
	}
	for _, f := range first {
		if strings.Contains(f, "abcdef01") || strings.Contains(f, "dc:a6") {
			t.Errorf("%q shows a raw value", f)
		}
	}
}

func TestBoardSerialFallsBackToTheProcessorsLine(t *testing.T) {
	root := t.TempDir()
	write(t, root, "proc/cpuinfo", "Hardware\t: BCM2835\nSerial\t\t: 00000000deadbeef\nModel\t\t: Raspberry Pi\n")
	if got := (&Host{facts: root}).boardSerial(); got != "00000000deadbeef" {
		t.Errorf("got %q", got)
	}
}

// env makes a process environment.
func env(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestInitSystemIsToldByPathAndAbstractName(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "n"), "@postern-test-" + strconv.Itoa(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // a test's socket
		h, err := newHost(Options{}, env("NOTIFY_SOCKET", name))
		if err != nil {
			t.Fatal(err)
		}
		h.Notify("READY=1\nSTATUS=Offline, 61 d left")
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != "READY=1\nSTATUS=Offline, 61 d left" {
			t.Errorf("%s heard %q, %v", name, b[:n], err)
		}
	}
}

func TestInitSystemThatIsGoneOrNonsenseIsNoError(t *testing.T) {
	for _, name := range []string{"", "relative", filepath.Join(t.TempDir(), "gone"), "@postern-test-gone"} {
		h, err := newHost(Options{}, env("NOTIFY_SOCKET", name))
		if err != nil {
			t.Fatal(err)
		}
		h.Notify("READY=1")
	}
}

func TestReadyDescriptorHearsOneNewlineAndIsClosed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // a test's pipe
	fd, err := unix.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := newHost(Options{ReadyFD: fd}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	h.Notify("STATUS=starting")
	h.Notify("READY=1")
	h.Notify("READY=1")
	b := make([]byte, 10)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "\n" {
		t.Errorf("heard %q, %v", b[:n], err)
	}
	if n, err := r.Read(b); n != 0 || err == nil {
		t.Errorf("heard %q after it, %v, want the end", b[:n], err)
	}
}

func TestWatchdogIsOursOnly(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{{"60000000", "", time.Minute}, {"60000000", pid, time.Minute}, {"60000000", "1", 0}, {"", "", 0}, {"-5", "", 0}, {"x", "", 0}, {"99999999999999999999", "", 0}} {
		h, err := newHost(Options{}, env("WATCHDOG_USEC", test.usec, "WATCHDOG_PID", test.pid))
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Watchdog(); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}

func TestLockHolderIsNamed(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "identity.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	write(t, root, "proc/locks", "1: POSIX  ADVISORY  WRITE 5 08:01:1 0 EOF\n2: FLOCK  ADVISORY  WRITE 1 08:01:"+strconv.FormatUint(st.Ino, 10)+" 0 EOF\n")
	h := &Host{facts: root}
	if got := h.LockHolder(path); !strings.HasPrefix(got, "pid 1") {
		t.Errorf("holder is %q", got)
	}
	if got := h.LockHolder(path + ".missing"); got != "" {
		t.Errorf("a missing file is held by %q", got)
	}
}
