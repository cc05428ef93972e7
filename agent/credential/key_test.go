package credential

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// pair makes a key record with a certificate over its key.
func pair(t testing.TB, algorithm string) store.KeyRecord {
	t.Helper()
	signer, err := generate(algorithm)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	must(t, err)
	chain, err := newAuthority(t).issue("test", systemIdentity(), signer.Public())
	must(t, err)
	return store.KeyRecord{Protection: "file", PKCS8: der, Chain: rawChain(chain), Made: time.Now()}
}

func TestStoredKeysAreReadBack(t *testing.T) {
	for _, algorithm := range []string{AlgorithmEC, AlgorithmRSA} {
		rec := pair(t, algorithm)
		c, err := credentialOf(systemIdentity(), rec)
		must(t, err)
		if len(c.Chain) != 2 || c.Leaf() != c.Chain[0] || c.Protection != "file" || !c.Made.Equal(rec.Made) {
			t.Errorf("%s: got %+v", algorithm, c)
		}
		if tls := c.TLS(); len(tls.Certificate) != 2 || tls.PrivateKey == nil || tls.Leaf != c.Leaf() {
			t.Errorf("%s: as a client certificate: %+v", algorithm, tls)
		}
		if got := c.Thumbprint(); len(got) != 43 || strings.ContainsAny(got, "+/=") {
			t.Errorf("%s: thumbprint %q is not unpadded base64url of a SHA-256", algorithm, got)
		}
	}
}

func TestBrokenKeyRecordsAreNamedNotUsed(t *testing.T) {
	good, other := pair(t, AlgorithmEC), pair(t, AlgorithmEC)
	for name, row := range map[string]struct {
		change func(*store.KeyRecord)
		says   string
	}{
		"no key":          {func(k *store.KeyRecord) { k.PKCS8, k.Protection, k.Handle = nil, "tpm", "0x81000001" }, `tpm "0x81000001"`},
		"key cut short":   {func(k *store.KeyRecord) { k.PKCS8 = k.PKCS8[:20] }, "read key"},
		"no certificate":  {func(k *store.KeyRecord) { k.Chain = nil }, "there is none"},
		"bad certificate": {func(k *store.KeyRecord) { k.Chain = [][]byte{{1, 2, 3}} }, "read certificate"},
		"another's key":   {func(k *store.KeyRecord) { k.PKCS8 = other.PKCS8 }, "does not belong to the certificate"},
	} {
		rec := good
		row.change(&rec)
		if _, err := credentialOf(systemIdentity(), rec); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, want %q", name, err, row.says)
		}
	}
}

// ID6: a record whose key and certificate do not match names both.
func TestID6KeyAndCertificateThatDoNotMatchAreDamageThatNamesBoth(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.open()
		w.connect()
		other := pair(t, AlgorithmEC)
		var want []string
		must(t, w.change(systemID, func(rec *store.IdentityRecord) {
			mine, err := credentialOf(systemIdentity(), *rec.Current)
			must(t, err)
			theirs, err := signerOf(other)
			must(t, err)
			want = []string{keyPrint(mine.Signer.Public()), keyPrint(theirs.Public())}
			rec.Current.PKCS8 = other.PKCS8
		}))
		w.reboot(time.Minute)
		st := w.expect(systemID, lifecycle.Damaged)
		for _, print := range want {
			if !strings.Contains(st.Reason, print) {
				t.Errorf("reason %q does not name %s", st.Reason, print)
			}
		}
		if st.Credential != nil || st.Fix != fixReconnect {
			t.Errorf("got credential %v, fix %q", st.Credential, st.Fix)
		}
		calls := w.ca.total()
		w.wait(24 * time.Hour)
		if n := w.ca.total() - calls; n != 0 {
			t.Errorf("a damaged identity contacted the authority %d times", n)
		}
		_, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
		if p := problem(t, err, "already-connected"); p.Fix != fixReconnect {
			t.Errorf("connect: fix %q", p.Fix)
		}
		_, err = w.Reconnect(context.Background(), w.onboarding(systemIdentity()))
		must(t, err)
		w.wait(time.Minute)
		w.expect(systemID, lifecycle.Connected)
		if records, _ := w.file.Identities(); records[0].Previous != nil {
			t.Error("a key that fits nothing is kept")
		}
	})
}

// ID11: a key in a TPM that cannot be reached is named, nothing falls back to
// another key, and everything is kept.
func TestID11KeyThatCannotBeReachedIsDamageThatKeepsEverything(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.open()
		w.connect()
		must(t, w.change(systemID, func(rec *store.IdentityRecord) {
			rec.Current.Protection, rec.Current.PKCS8, rec.Current.Handle = "tpm", nil, "0x81010001"
		}))
		w.reboot(time.Minute)
		before, calls := bytesOf(t, w.dir), w.ca.total()
		st := w.expect(systemID, lifecycle.Damaged)
		if !strings.Contains(st.Reason, "tpm") || !strings.Contains(st.Reason, "0x81010001") || st.Credential != nil {
			t.Errorf("got %+v", st)
		}
		w.wait(day)
		sameBytes(t, before, bytesOf(t, w.dir))
		if w.ca.total() != calls {
			t.Error("the authority was contacted")
		}
	})
}

// ID12: at the first boot of a board key making waits for entropy, and says so.
func TestID12WaitingForEntropyIsSaidAfterTwoSeconds(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.open()
		w.generate = func(algorithm string) (crypto.Signer, error) {
			time.Sleep(3 * time.Second)
			return generate(algorithm)
		}
		w.connect()
		if said := strings.Join(w.steps, "\n"); !strings.Contains(said, "entropy") {
			t.Errorf("nothing was said:\n%s", said)
		}
		w.steps = nil
		w.generate = generate
		must(t, w.Disconnect(context.Background(), false, nil))
		w.connect()
		if said := strings.Join(w.steps, "\n"); strings.Contains(said, "entropy") {
			t.Errorf("said without need:\n%s", said)
		}
	})
}

func TestKeyThatCannotBeMadeStopsConnectBeforeTheClaimIsSpent(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.open()
		w.generate = func(string) (crypto.Signer, error) { return nil, errors.New("no entropy device") }
		_, err := w.Connect(context.Background(), w.onboarding(systemIdentity()))
		if err == nil || w.ca.count("enroll") != 0 {
			t.Errorf("got %v after %d calls", err, w.ca.count("enroll"))
		}
	})
}

func FuzzKeyRecord(f *testing.F) {
	rec := pair(f, AlgorithmEC)
	f.Add(rec.PKCS8, rec.Chain[0])
	f.Add([]byte{}, []byte{0x30})
	f.Fuzz(func(t *testing.T, key, cert []byte) {
		c, err := credentialOf(systemIdentity(), store.KeyRecord{Protection: "file", PKCS8: key, Chain: [][]byte{cert}})
		if err == nil && !samePublicKey(c.Signer.Public(), c.Leaf().PublicKey) {
			t.Fatal("a key that does not belong to its certificate was taken")
		}
	})
}
