package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// goldenContact is what each golden cache remembers.
func goldenContact() ContactRecord {
	return ContactRecord{
		LastContact: time.Unix(1_700_000_000, 0).UTC(), LastFailure: time.Unix(1_700_000_500, 0).UTC(),
		FailureClass: "transient", FailureReason: "no route",
	}
}

// TestGoldenDatabasesOfEveryReleaseOpen: testdata/golden holds a state
// directory as each released schema wrote it. They are never written anew;
// -store.golden makes the one of a schema that is not released yet.
func TestGoldenDatabasesOfEveryReleaseOpen(t *testing.T) {
	if *updateGolden {
		writeGolden(t, filepath.Join("testdata", "golden", currentSchema().String()))
	}
	releases := value(os.ReadDir(filepath.Join("testdata", "golden")))(t)
	if len(releases) == 0 {
		t.Fatal("there is no golden database")
	}
	for _, release := range releases {
		t.Run(release.Name(), func(t *testing.T) {
			golden := contents(t, filepath.Join("testdata", "golden", release.Name()))
			dir := lay(t, golden)
			f, c := openIdentity(t, dir, Options{Verify: childVerify}), openCache(t, dir, Options{Verify: childVerify})
			sameIdentities(t, f, testIdentity("a", 1), testIdentity("b", 1))
			wantTokens(t, c, token("a", "q", 1), token("a", "r", 1))
			if got := audit(t, c, 0); len(got) != 5 || c.Contact() != goldenContact() {
				t.Fatalf("audit %v, contact %+v", got, c.Contact())
			}
			for _, h := range []Health{f.Health(), c.Health()} {
				if h.Recovered != "" || h.Problem != "" || h.Dropped != 0 {
					t.Errorf("health %+v", h)
				}
			}
			// And they can be written on, and read again.
			must(t, f.Update(func(tx *IdentityTx) error { return tx.PutIdentity(testIdentity("c", 1)) }))
			commit(t, c, Change{PutTokens: []TokenRecord{token("b", "r", 1)}})
			must(t, errors.Join(f.Check(t.Context()), c.Check(t.Context()), f.Close(), c.Close()))
			sameIdentities(t, openIdentity(t, dir, Options{}), testIdentity("a", 1), testIdentity("b", 1), testIdentity("c", 1))
			delete(golden, identityName) // the backup copy alone, too
			sameIdentities(t, openIdentity(t, lay(t, golden), Options{}), testIdentity("a", 1), testIdentity("b", 1))
		})
	}
}

func writeGolden(t *testing.T, to string) {
	dir := t.TempDir()
	enrolled(t, dir)
	c := value(OpenCache(t.Context(), dir, Options{}))(t)
	contact := goldenContact()
	commit(t, c, Change{PutTokens: []TokenRecord{token("a", "r", 1), token("a", "q", 1)}, Contact: &contact, Audit: entries(1, 5)})
	must(t, c.Close())
	must(t, os.RemoveAll(to))
	must(t, os.MkdirAll(to, 0o755))
	for name, content := range contents(t, dir) {
		if filepath.Ext(name) != ".lock" {
			must(t, os.WriteFile(filepath.Join(to, name), []byte(content), 0o600))
		}
	}
}
