package site

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestOpenSaysWhatIsWrongWithItsOptions(t *testing.T) {
	for _, url := range []string{"", "http://127.0.0.1", "https://", "127.0.0.1:8443", "https://x/path", "https://x?q", "https://x#f", "https://u@x", "https://x:8443/a"} {
		opts := testOptions(&wall{now: start})
		opts.URL = url
		if _, err := Open(context.Background(), t.TempDir(), opts); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v", url, err)
		}
	}
	opts := testOptions(&wall{now: start})
	opts.TokenType = "jwt"
	if _, err := Open(context.Background(), t.TempDir(), opts); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(context.Background(), t.TempDir()+"/missing", testOptions(&wall{now: start})); err == nil {
		t.Error("a directory that is not there was opened")
	}
}

func TestANewerSchemaIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.must(w.a.update(context.Background(), func(t *tx) error {
		s, err := load[siteRecord](t, bucketSite, "authority")
		s.Schema = schema + 1
		return errors.Join(err, save(t, bucketSite, "authority", s))
	}))
	copied := t.TempDir()
	copyDir(t, w.dir, copied)
	if _, err := Open(context.Background(), copied, w.opts); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v", err)
	}
}

func TestTheAuthoritysOwnCertificatesLiveAsLongAsSaid(t *testing.T) {
	w := newWorld(t)
	root := w.a.root.certificate
	first, err := w.a.issuingCertificate(context.Background())
	w.must(err)
	if !root.NotAfter.Equal(start.Add(rootLife)) || !first.certificate.NotAfter.Equal(start.Add(intermediateLife)) {
		t.Errorf("root until %v, intermediate until %v", root.NotAfter, first.certificate.NotAfter)
	}
	if !root.IsCA || root.MaxPathLen != 1 || !first.certificate.IsCA || !first.certificate.MaxPathLenZero {
		t.Error("path lengths")
	}
	// In its last year a new one signs; what the old one signed works on.
	w.clock.set(start.Add(intermediateLife - 200*24*time.Hour))
	d := w.connect("gw")
	if d.chain[1].Equal(first.certificate) || !d.chain[1].NotAfter.After(first.certificate.NotAfter) {
		t.Error("the old intermediate signs on")
	}
	w.restart()
	if a := w.do(d, "POST", "/renew", nil, ""); a.status != 201 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	// In the root's last year nothing outlives it.
	w.clock.set(start.Add(rootLife - 30*24*time.Hour))
	e := w.connect("late")
	if e.leaf().NotAfter.After(root.NotAfter) || e.chain[1].NotAfter.After(root.NotAfter) {
		t.Errorf("outlives the root: %v, %v", e.leaf().NotAfter, e.chain[1].NotAfter)
	}
	if err := w.a.checkLedger(); err != nil {
		t.Error(err)
	}
}

func TestABugInOneRequestIsAnAnswerAndALogLine(t *testing.T) {
	var log syncBuffer
	w := newWorld(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	w.a.signing = nil // whoever needs it panics
	a := w.do(nil, http.MethodGet, "/"+w.a.tenant+"/discovery/v2.0/keys", nil, "")
	if a.status != 500 || !strings.Contains(log.String(), "site-panic") {
		t.Errorf("got %d, log %s", a.status, log.String())
	}
	if a := w.do(nil, http.MethodGet, "/health", nil, ""); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

func TestAClaimIsEnoughToConnectAndEarnAToken(t *testing.T) {
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw-0042")
	a := w.tokenFor(d, vault)
	if a.status != http.StatusOK {
		t.Fatalf("token: %d %s", a.status, a.body)
	}
	m, err := w.a.MachineByName(context.Background(), "GW-0042")
	w.must(err)
	if m.ClientID != d.clientID() || len(m.Certificates) != 1 {
		t.Fatalf("got %+v", m)
	}
	n := w.rekey(d)
	w.restart()
	if a := w.tokenFor(n, vault); a.status != http.StatusOK {
		t.Fatalf("token: %d %s", a.status, a.body)
	}
}
