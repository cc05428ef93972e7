package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDestroyLeavesNothingToReadAndMayBeRepeated(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	must(t, os.WriteFile(filepath.Join(dir, identityName+".damaged-20200101T000000Z"), []byte("old"), 0o600))
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	must(t, f.Destroy())
	if f.Exists() || f.Damaged() != nil {
		t.Fatal("there still is an identity")
	}
	must(t, f.Destroy())
	must(t, f.Check(t.Context()))
	for name := range contents(t, dir) {
		if !strings.HasSuffix(name, ".lock") {
			t.Errorf("%s is left", name)
		}
	}
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }))
	must(t, f.Close())
	f = openIdentity(t, dir, Options{})
	sameIdentities(t, f)
}

// The key is what forgets: whoever copied every file before, and not the key,
// has nothing.
func TestDestroyedKeyIsAnotherOneNextTime(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	before := contents(t, dir)
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	must(t, f.Destroy())
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }))
	must(t, f.Close())
	after := contents(t, dir)
	if after[keyName] == before[keyName] {
		t.Fatal("the key is the same")
	}
	after[identityName], after[identityName+".bak"] = before[identityName], before[identityName+".bak"]
	f = openIdentity(t, lay(t, after), Options{})
	wantError(t, f.Damaged(), ErrWrongKey)
}

func TestDestroyGivesUpADamagedIdentity(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	must(t, os.Remove(filepath.Join(dir, keyName)))
	f := openIdentity(t, dir, Options{})
	wantError(t, f.Damaged(), ErrNotFound)
	must(t, f.Destroy())
	if f.Exists() {
		t.Fatal("it still exists")
	}
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }))
	sameIdentities(t, f)
}

// Each step of Destroy is a directory state that a power cut may leave. From
// every one of them the next start finds the whole identity or none.
func TestDestroyThatWasCutShortIsFinished(t *testing.T) {
	source := t.TempDir()
	enrolled(t, source)
	good := contents(t, source)
	tombstone := string(value(marker{State: markerDestroying, Generation: 3}.encode())(t))
	for name, change := range map[string]func(f map[string]string){
		"announced":           func(map[string]string) {},
		"key overwritten":     func(f map[string]string) { f[keyName] = string(make([]byte, len(f[keyName]))) },
		"key half written":    func(f map[string]string) { f[keyName] = string(make([]byte, 4096)) + f[keyName][4096:] },
		"key removed":         func(f map[string]string) { delete(f, keyName) },
		"database removed":    func(f map[string]string) { delete(f, keyName); delete(f, identityName) },
		"backup copy removed": func(f map[string]string) { delete(f, keyName); delete(f, identityName+".bak") },
		"all but the marker": func(f map[string]string) {
			delete(f, keyName)
			delete(f, identityName)
			delete(f, identityName+".bak")
		},
	} {
		files := map[string]string{}
		for k, v := range good {
			files[k] = v
		}
		files[markerName] = tombstone
		change(files)
		dir := lay(t, files)
		f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
		if f.Exists() || f.Damaged() != nil {
			t.Errorf("%s: half an identity: %v", name, f.Damaged())
		}
		must(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }))
		must(t, f.Close())
		f = value(OpenIdentity(t.Context(), dir, Options{}))(t)
		sameIdentities(t, f)
		must(t, f.Close())
	}
}

// The platform writes under a temporary name of its own, .kek.RANDOM.tmp: a
// cut between its two steps leaves the key there.
func TestDestroyForgetsAKeyThatACutLeftUnderATemporaryName(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	key := value(os.ReadFile(filepath.Join(dir, keyName)))(t)
	left := []string{"." + keyName + ".ABCDEF.tmp", keyName + ".tmp"}
	for _, name := range left {
		must(t, os.WriteFile(filepath.Join(dir, name), key, 0o600))
	}
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	must(t, f.Destroy())
	must(t, f.Close())
	for _, name := range append(left, keyName) {
		if !missing(filepath.Join(dir, name)) {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestDroppedCacheBeginsAnewUnderTheNewKey(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	c := value(OpenCache(t.Context(), dir, Options{}))(t)
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}, Audit: []AuditEntry{{1, []byte("{}")}}})
	must(t, c.Commit(t.Context()))
	must(t, os.WriteFile(filepath.Join(dir, cacheName+".corrupt-20200101T000000Z"), []byte("old"), 0o600))
	must(t, f.Destroy())
	must(t, c.Drop())
	if len(c.Tokens()) != 0 || c.LastAudit() != 0 || len(asides(dir, cacheName+".corrupt-")) != 0 {
		t.Fatal("the cache did not forget")
	}
	c.Stage(Change{PutTokens: []TokenRecord{token("b", "r", 1)}})
	must(t, c.Commit(t.Context()))
	must(t, f.Update(func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }))
	must(t, errors.Join(c.Close(), f.Close()))
	c = openCache(t, dir, Options{})
	if got := c.Tokens(); len(got) != 1 || got[0].ClientID != "b" || c.Health().Recovered != "" {
		t.Fatalf("got %+v, health %+v", got, c.Health())
	}
}

// A cut between Destroy and Drop leaves a cache that nobody can read.
func TestCacheOfADestroyedKeyIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	c := value(OpenCache(t.Context(), dir, Options{}))(t)
	c.Stage(Change{PutTokens: []TokenRecord{token("a", "r", 1)}})
	must(t, c.Commit(t.Context()))
	must(t, c.Close())
	f := openIdentity(t, dir, Options{})
	must(t, f.Destroy())
	c = openCache(t, dir, Options{})
	if h := c.Health(); len(c.Tokens()) != 0 || h.Mode != ModeDisk || !strings.Contains(h.Recovered, "key") {
		t.Fatalf("tokens %v, health %+v", c.Tokens(), h)
	}
}

// Unlinking a file leaves its bytes to whoever has another name for it.
func TestDestroyedKeyIsOverwrittenBeforeItIsRemoved(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	other := filepath.Join(t.TempDir(), "link")
	must(t, os.Link(filepath.Join(dir, keyName), other))
	f := openIdentity(t, dir, Options{})
	must(t, f.Destroy())
	if left := strings.Trim(string(value(os.ReadFile(other))(t)), "\x00"); left != "" {
		t.Fatalf("%d bytes of the key file are left", len(left))
	}
}

// A Destroy that could not be finished must not take the next identity along.
func TestNoIdentityIsMadeBesideAnUnfinishedDestroy(t *testing.T) {
	dir := t.TempDir()
	enrolled(t, dir)
	must(t, os.WriteFile(filepath.Join(dir, markerName), value(marker{State: markerDestroying}.encode())(t), 0o600))
	stuck := filepath.Join(dir, identityName+".bak")
	must(t, errors.Join(os.Remove(stuck), os.MkdirAll(filepath.Join(stuck, "in the way"), 0o700)))
	f := value(OpenIdentity(t.Context(), dir, Options{}))(t)
	update := func(tx *IdentityTx) error { return tx.PutDevice(testDevice()) }
	if f.Exists() || f.Update(update) == nil || f.Check(t.Context()) == nil {
		t.Fatal("an identity was made beside an unfinished Destroy, or nobody says that it is unfinished")
	}
	must(t, os.RemoveAll(stuck))
	must(t, errors.Join(f.Update(update), f.Close()))
	f = openIdentity(t, dir, Options{})
	sameIdentities(t, f)
}

// The announcement reached the disk, its sync failed, and the caller was told
// no: then the identity must still be there after a restart.
func TestDestroyThatFailedToBeginChangesNothing(t *testing.T) {
	for _, failures := range []int{1, 2} {
		dir := t.TempDir()
		enrolled(t, dir)
		left := failures
		no := errors.New("i/o error")
		o := Options{WriteFile: func(path string, content []byte) error {
			if left == 0 || filepath.Base(path) != markerName {
				return writePlain(path, content)
			}
			left--
			if strings.Contains(string(content), markerDestroying) {
				return errors.Join(writePlain(path, content), no)
			}
			return no // and nothing written
		}}
		f := value(OpenIdentity(t.Context(), dir, o))(t)
		wantError(t, f.Destroy(), no)
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
		must(t, f.Check(t.Context()))
		must(t, f.Close())
		f = value(OpenIdentity(t.Context(), dir, Options{}))(t)
		sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
		must(t, f.Close())
	}
}
