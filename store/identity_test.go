package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// sameIdentities compares what f holds with device and identities.
func sameIdentities(t testing.TB, f *IdentityFile, want ...IdentityRecord) {
	t.Helper()
	must(t, f.Damaged())
	if got := value(f.Device())(t); !reflect.DeepEqual(got, testDevice()) {
		t.Fatalf("device\n%+v, want\n%+v", got, testDevice())
	}
	if got := value(f.Identities())(t); !reflect.DeepEqual(got, want) {
		t.Fatalf("identities\n%+v, want\n%+v", got, want)
	}
}

func TestNothingIsMadeUntilThereIsAnIdentity(t *testing.T) {
	dir := t.TempDir()
	f := openIdentity(t, dir, Options{})
	if f.Exists() || f.Damaged() != nil {
		t.Fatal("there is an identity in an empty directory")
	}
	_, err := f.Device()
	wantError(t, err, ErrNotFound)
	must(t, f.Check(t.Context()))
	must(t, f.Update(func(*IdentityTx) error { return nil }))
	no := errors.New("no")
	wantError(t, f.Update(func(tx *IdentityTx) error { return errors.Join(tx.PutDevice(testDevice()), no) }), no)
	if files := contents(t, dir); len(files) != 1 { // the lock
		t.Fatalf("files were made: %v", files)
	}
	_, err = OpenIdentity(t.Context(), filepath.Join(dir, "none"), Options{})
	wantError(t, err, fs.ErrNotExist)
}

func TestIdentitySurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	f := openIdentity(t, dir, Options{Verify: childVerify})
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	if !f.Exists() || f.Health().Recovered != "" {
		t.Fatalf("health %+v", f.Health())
	}
	for _, name := range []string{keyName, identityName, identityName + ".bak", markerName} {
		if info := value(os.Lstat(filepath.Join(dir, name)))(t); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", name, info.Mode().Perm())
		}
	}
}

func TestUpdateSeesItsOwnChangesAndClientIDsWithoutCase(t *testing.T) {
	f := openIdentity(t, t.TempDir(), Options{})
	must(t, f.Update(func(tx *IdentityTx) error {
		_, err := tx.Device()
		wantError(t, err, ErrNotFound)
		must(t, tx.PutDevice(testDevice()))
		must(t, tx.PutIdentity(testIdentity("AbC", 1)))
		if got := value(tx.Identity("aBc"))(t); got.Name != "gw-AbC" {
			return fmt.Errorf("got %+v", got)
		}
		must(t, tx.PutIdentity(testIdentity("b", 1)))
		must(t, tx.DeleteIdentity("B"))
		wantError(t, tx.DeleteIdentity("b"), ErrNotFound)
		if tx.PutIdentity(IdentityRecord{}) == nil {
			return errors.New("an identity without a client id was taken")
		}
		if all := value(tx.Identities())(t); len(all) != 1 {
			return fmt.Errorf("%d identities, want 1", len(all))
		}
		_, err = tx.Device()
		return err
	}))
	generation := f.Health().Generation
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }))
	if f.Health().Generation != generation {
		t.Fatal("the same value again was a commit")
	}
}

func TestReturnedListIsTheCallersOwn(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	f := openIdentity(t, dir, Options{})
	list := value(f.Identities())(t)
	list[0] = IdentityRecord{}
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
}

func TestDamagedDatabaseIsRestoredAndItsBytesAreKept(t *testing.T) {
	source := t.TempDir()
	enrolled(t, source)
	good := contents(t, source)
	for name, damage := range map[string]func(files map[string]string){
		"database missing":             func(f map[string]string) { delete(f, identityName) },
		"database empty":               func(f map[string]string) { f[identityName] = "" },
		"database foreign":             func(f map[string]string) { f[identityName] = strings.Repeat("text ", 9000) },
		"database cut":                 func(f map[string]string) { f[identityName] = f[identityName][:4096] },
		"database and marker":          func(f map[string]string) { f[identityName] = "x"; delete(f, markerName) },
		"database and marker's text":   func(f map[string]string) { f[identityName] = "x"; f[markerName] = "{" },
		"database, marker of 0 bytes":  func(f map[string]string) { f[identityName] = "x"; f[markerName] = "" },
		"backup copy missing":          func(f map[string]string) { delete(f, identityName+".bak") },
		"backup copy damaged":          func(f map[string]string) { f[identityName+".bak"] = "x" },
		"marker missing":               func(f map[string]string) { delete(f, markerName) },
		"marker damaged":               func(f map[string]string) { f[markerName] = "{}" },
		"backup copy and marker":       func(f map[string]string) { f[identityName+".bak"] = ""; f[markerName] = "" },
		"leftovers of a cut in making": func(f map[string]string) { f[identityName+".new"] = "x"; f[markerName+".tmp"] = "y" },
	} {
		t.Run(name, func(t *testing.T) {
			files := make(map[string]string)
			for k, v := range good {
				files[k] = v
			}
			damage(files)
			dir := lay(t, files)
			f := value(OpenIdentity(t.Context(), dir, Options{Verify: childVerify}))(t)
			sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
			must(t, f.Check(t.Context()))
			must(t, f.Close())
			after := contents(t, dir)
			kept := slices.Collect(func(yield func(string) bool) {
				for name, text := range after {
					if strings.HasPrefix(name, identityName+".damaged-") && !yield(text) {
						return
					}
				}
			})
			if was, there := files[identityName]; there && was != good[identityName] && !slices.Contains(kept, was) {
				t.Error("the damaged database's bytes are gone")
			}
			// All three are whole again: losing the database now costs nothing.
			delete(after, identityName)
			f = value(OpenIdentity(t.Context(), lay(t, after), Options{Verify: childVerify}))(t)
			sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
			must(t, f.Close())
		})
	}
}

func TestHopelessIdentityIsDamagedAndUntouched(t *testing.T) {
	source := t.TempDir()
	enrolled(t, source)
	good := contents(t, source)
	other := t.TempDir()
	enrolled(t, other)
	for name, c := range map[string]struct {
		damage func(files map[string]string)
		want   error
	}{
		"key missing":          {func(f map[string]string) { delete(f, keyName) }, ErrNotFound},
		"key damaged":          {func(f map[string]string) { f[keyName] = "x" }, ErrDamaged},
		"another device's key": {func(f map[string]string) { f[keyName] = contents(t, other)[keyName] }, ErrWrongKey},
		"both databases":       {func(f map[string]string) { f[identityName], f[identityName+".bak"] = "x", "y" }, ErrDamaged},
		"both empty":           {func(f map[string]string) { f[identityName], f[identityName+".bak"] = "", "" }, ErrDamaged},
		"only the marker": {func(f map[string]string) {
			delete(f, identityName)
			delete(f, identityName+".bak")
		}, fs.ErrNotExist},
		"only an empty database": {func(f map[string]string) {
			f[identityName] = ""
			delete(f, identityName+".bak")
			delete(f, markerName)
		}, ErrDamaged},
		"marker of a newer release": {func(f map[string]string) {
			f[markerName] = sumOf(strings.Replace(f[markerName], "postern.identity/1", "postern.identity/2", 1))
		}, ErrNewer},
	} {
		t.Run(name, func(t *testing.T) {
			files := make(map[string]string)
			for k, v := range good {
				files[k] = v
			}
			c.damage(files)
			dir := lay(t, files)
			f := openIdentity(t, dir, Options{Verify: childVerify})
			wantError(t, f.Damaged(), c.want)
			if !f.Exists() || FixOf(f.Damaged()) == "" {
				t.Fatalf("exists %v, fix %q", f.Exists(), FixOf(f.Damaged()))
			}
			_, err := f.Identities()
			wantError(t, err, c.want)
			wantError(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }), c.want)
			wantError(t, f.Check(t.Context()), c.want)
			if after := contents(t, dir); !reflect.DeepEqual(after, files) {
				t.Fatal("files were changed")
			}
		})
	}
}

// sumOf puts the right sum into a marker's text.
func sumOf(text string) string {
	at := strings.Index(text, `"sum": "`) + len(`"sum": "`)
	bare := text[:at] + text[at+64:]
	return bare[:at] + hexSum([]byte(bare)) + bare[at:]
}

func TestDamagedIdentityHealsWhenItsKeyComesBack(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	kek := filepath.Join(dir, keyName)
	must(t, os.Rename(kek, kek+".away"))
	f := openIdentity(t, dir, Options{})
	wantError(t, f.Damaged(), ErrNotFound)
	wantError(t, f.Check(t.Context()), ErrNotFound)
	must(t, os.Rename(kek+".away", kek))
	must(t, f.Check(t.Context()))
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("c", 1)) }))
}

func TestOlderDatabaseIsNoticedByTheMarker(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	old := contents(t, dir)
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 2)) }))
	must(t, f.Close())
	files := contents(t, dir)

	files[identityName] = old[identityName] // as a snapshot, or a zeroed meta page, would
	back := lay(t, files)
	f = value(OpenIdentity(t.Context(), back, Options{}))(t)
	sameIdentities(t, f, testIdentity("a", 2), testIdentity("b", 1))
	if h := f.Health(); !strings.Contains(h.Recovered, "went back") || !strings.Contains(h.Recovered, "backup copy") {
		t.Fatalf("health %+v", h)
	}
	must(t, f.Close())

	files[identityName+".bak"] = old[identityName+".bak"] // both: reported, used, never counted backwards
	f = value(OpenIdentity(t.Context(), lay(t, files), Options{}))(t)
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
	if h := f.Health(); !strings.Contains(h.Recovered, "went back") || h.Generation < 3 {
		t.Fatalf("health %+v", h)
	}
	must(t, f.Close())
}

func TestWhatANewerReleaseAddedSurvivesThisOne(t *testing.T) {
	dir := t.TempDir()
	f := value(OpenIdentity(t.Context(), dir, Options{testOnlySchema: schema{1, 7}}))(t)
	must(t, f.Update(func(tx *IdentityTx) error {
		tx.records[place{"future", "k"}] = []byte(`{"new":1}`)
		tx.changed[place{"future", "k"}] = true
		return tx.PutDevice(testDevice())
	}))
	must(t, f.Close())
	f = value(OpenIdentity(t.Context(), dir, Options{}))(t) // the older slot after a rollback
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("a", 1)) }))
	sameIdentities(t, f, testIdentity("a", 1))
	must(t, f.Close())
	must(t, os.Remove(filepath.Join(dir, identityName))) // even by way of the backup copy
	f = openIdentity(t, dir, Options{testOnlySchema: schema{1, 7}})
	if string(f.now.Load().records[place{"future", "k"}]) != `{"new":1}` {
		t.Fatal("the newer release's record is gone")
	}
}

func TestRemovedFilesOfARunningAgentComeBack(t *testing.T) {
	for _, gone := range [][]string{
		{identityName},
		{identityName + ".bak"},
		{markerName},
		{keyName},
		{identityName, identityName + ".bak"},
		{identityName, identityName + ".bak", markerName, keyName},
	} {
		dir := t.TempDir()
		enrolled(t, dir)
		f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
		for _, name := range gone {
			must(t, os.Remove(filepath.Join(dir, name)))
		}
		must(t, f.Check(t.Context()))
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
		must(t, f.Close())
		f = value(OpenIdentity(t.Context(), dir, Options{}))(t)
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
		must(t, f.Close())
		if missing(filepath.Join(dir, identityName+".bak")) || missing(filepath.Join(dir, markerName)) {
			t.Fatalf("without %v: backup copy or marker did not come back", gone)
		}
	}
}

func TestUpdateAfterTheDatabaseWasDeletedGoesToAFileThatHasAName(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	must(t, os.Remove(filepath.Join(dir, identityName)))
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("c", 1)) }))
	must(t, f.Close())
	f = openIdentity(t, dir, Options{})
	sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1), testIdentity("c", 1))
}

func TestStrangersDatabaseAtOurPathIsSetAsideNotRead(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	f := openIdentity(t, dir, Options{})
	path := filepath.Join(dir, identityName)
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, []byte("stranger"), 0o600))
	must(t, f.Check(t.Context()))
	kept := asides(dir, identityName+".damaged-")
	if len(kept) != 1 || string(value(os.ReadFile(kept[0]))(t)) != "stranger" {
		t.Fatalf("kept %v", kept)
	}
	must(t, VerifyFile(t.Context(), filepath.Join(dir, identityName+".bak"), Options{}))
}

func TestOldDamagedCopiesAreBounded(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	for i := range 7 {
		must(t, os.WriteFile(filepath.Join(dir, identityName), fmt.Append(nil, "bad ", i), 0o600))
		must(t, value(OpenIdentity(t.Context(), dir, Options{}))(t).Close())
	}
	kept := asides(dir, identityName+".damaged-")
	if len(kept) != asideIdentityKept {
		t.Fatalf("%d damaged copies, want %d", len(kept), asideIdentityKept)
	}
}
