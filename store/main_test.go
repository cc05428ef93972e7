package store

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The long forms of the tests below, for a machine with time.
var (
	killRounds   = flag.Int("store.kills", 25, "rounds of TestKilledWriterLosesNothingAcknowledged")
	damageCases  = flag.Int("store.damage", 500, "cases of TestDamagedFiles…")
	updateGolden = flag.Bool("store.golden", false, "write testdata/golden anew")
)

// roleVariable tells the test binary to be another process: the verify child,
// or one of the writers that are killed, traced and starved.
const roleVariable = "POSTERN_STORE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role, ok := os.LookupEnv(roleVariable); ok {
		os.Exit(play(role, os.Args[1:]))
	}
	flag.Parse()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// play is the main function of the other processes.
func play(role string, args []string) int {
	roles := map[string]func([]string) error{
		"verify": func(args []string) error {
			err := VerifyFile(context.Background(), args[0], Options{})
			return errors.Join(err, WriteVerdict(os.Stdout, err))
		},
		"hang":   func([]string) error { <-time.After(time.Hour); return nil }, // an empty select would be a deadlock, which Go notices without cgo
		"silent": func([]string) error { return nil },
		"crash": func([]string) error {
			var m map[string]int
			m["a"] = 1 //nolint:staticcheck // a fault, as damage would cause it
			return nil
		},
		"writer": writerRole,
	}
	maps.Copy(roles, linuxRoles())
	f, ok := roles[role]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such role:", role)
		return 2
	}
	if err := f(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// as returns the command that runs this binary in a role.
func as(ctx context.Context, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// childVerify checks files the way the agent does.
func childVerify(ctx context.Context, path string) error {
	return Child(func(ctx context.Context, path string) *exec.Cmd { return as(ctx, "verify", path) })(ctx, path)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want one that is %v", err, want)
	}
}

// testKey is the same key every time.
func testKey(t testing.TB) *Key {
	t.Helper()
	return value(newKey([]byte(strings.Repeat("k", keyBytes)), Options{}))(t)
}

func openDB(t testing.TB, path string, o Options) *DB {
	t.Helper()
	d := value(Open(t.Context(), path, testKey(t), o))(t)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func openIdentity(t testing.TB, dir string, o Options) *IdentityFile {
	t.Helper()
	f := value(OpenIdentity(t.Context(), dir, o))(t)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func openCache(t testing.TB, dir string, o Options) *Cache {
	t.Helper()
	c := value(OpenCache(t.Context(), dir, o))(t)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// enrolled makes a state directory with a device and the identities a and b,
// each with keys and chains of the usual sizes, and closes it.
func enrolled(t testing.TB, dir string) {
	t.Helper()
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	must(t, f.Update(func(tx *IdentityTx) error {
		return errors.Join(tx.PutDevice(testDevice()), tx.PutIdentity(testIdentity("a", 1)))
	}))
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("b", 1)) }))
	must(t, f.Close())
}

// stateDir makes a directory with an identity and a cache with one token.
func stateDir(t testing.TB) string {
	t.Helper()
	dir := scratch(t)
	enrolled(t, dir)
	c := value(OpenCache(t.Context(), dir, Options{}))(t)
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 1)}, Audit: entries(1, 3)})
	must(t, c.Close())
	return dir
}

func testDevice() DeviceRecord {
	return DeviceRecord{
		AuthorityURL: "https://ca.example", RootSHA256: strings.Repeat("ab", 32),
		Fingerprint: []string{"board=1", "mac=2"}, Floor: time.Unix(1_700_000_000, 0).UTC(), ConnectedAt: time.Unix(1_700_000_100, 0).UTC(),
	}
}

// testIdentity is an identity whose key tells its age.
func testIdentity(id string, age int) IdentityRecord {
	key := func(n int) *KeyRecord {
		return &KeyRecord{
			Protection: "file", PKCS8: fmt.Appendf(nil, "key %s %d %0120d", id, n, n),
			Chain: [][]byte{fmt.Appendf(nil, "leaf %s %d %0600d", id, n, n), fmt.Appendf(nil, "intermediate %0500d", n)},
			Made:  time.Unix(1_700_000_000+int64(n), 0).UTC(),
		}
	}
	return IdentityRecord{
		Kind: "SystemAssigned", Name: "gw-" + id, ClientID: id, ObjectID: "o" + id, TenantID: "t",
		ResourceID: "/r/" + id, Current: key(age), Previous: key(age - 1),
	}
}

// token is a cached token whose value tells its key and age.
func token(client, resource string, age int) TokenRecord {
	return TokenRecord{
		ClientID: client, Resource: resource,
		AccessToken: fmt.Sprintf("token %s %s %d %s", client, resource, age, strings.Repeat("x", 1500+age%700)),
		Issued:      time.Unix(1_700_000_000+int64(age), 0).UTC(), Expires: time.Unix(1_700_086_400+int64(age), 0).UTC(),
		BootID: "boot", IssuedBoot: time.Duration(age), TrustedWall: true, LastUsed: time.Unix(1_700_000_000, 0).UTC(), Owner: "uid:1000",
	}
}

// contents reads all files below dir, by name.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir+"/")] = string(b)
		return err
	}))
	return files
}

// scratch is a directory for tests of many files, in memory where there is
// such a place: fsync on a busy disk would take most of their time.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(shm(), "postern") //nolint:usetesting // t.TempDir cannot be told where
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// shm is a directory in memory, or the usual temporary one.
func shm() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// lay writes files into a new directory.
func lay(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := scratch(t)
	for name, content := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return dir
}

// lines reads a process's output line by line.
func lines(cmd *exec.Cmd) (*bufio.Scanner, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return bufio.NewScanner(out), cmd.Start()
}
