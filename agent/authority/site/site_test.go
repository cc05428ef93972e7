package site

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

func TestOpenSaysWhatIsWrongWithItsOptions(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

func TestNoAuthorityIsMadeUnderAClockFromBeforeTheProgram(t *testing.T) {
	t.Parallel()
	clock := &wall{now: time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC)}
	opts := testOptions(clock)
	opts.Built = start
	dir := t.TempDir()
	if _, err := Open(context.Background(), dir, opts); err == nil || !strings.Contains(err.Error(), "1970-01-01") {
		t.Fatalf("got %v", err)
	}
	clock.set(start)
	a, err := Open(context.Background(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	clock.set(time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC))
	if a, err = Open(context.Background(), dir, opts); err != nil {
		t.Fatalf("one that is there is not opened: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsIssuedBeforeTheAuthoritysBirth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	token := w.claim(ClaimRequest{Machine: "other"})
	w.clock.set(time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC))
	for path, body := range map[string]string{"/sign": "{}", "/1.0/renew": "", "/rekey": "{}", w.tokenPath(): ""} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)) // no TLS: no client would believe the server either
		rec := httptest.NewRecorder()
		w.a.Handler().ServeHTTP(rec, r)
		if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") != "60" || !strings.HasPrefix(rec.Header().Get("Date"), "Thu, 01 Jan 1970") {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
	w.clock.set(start)
	w.sign(token)
	if a := w.tokenFor(d, vault); a.status != 200 {
		t.Errorf("when the time came: %d %s", a.status, a.body)
	}
}

// The x5cInsecure bearer token of step-ca's renewal after expiry.
func TestNobodyRenewsByABearerToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.connect("gw")
	stranger := newWorld(t).connect("gw")
	bearer := func(d *device, by *device) string {
		now := w.clock.Now().Unix()
		token, err := jws.Sign(by.key, jws.ES256, map[string]any{"x5cInsecure": []string{base64.StdEncoding.EncodeToString(d.leaf().Raw)}},
			map[string]any{"iss": "step-ca-client/1.0", "sub": d.clientID(), "aud": testURL + "/1.0/renew", "jti": newID(), "nbf": now, "iat": now, "exp": now + 300})
		w.must(err)
		return token
	}
	over := "The request lacked necessary authorization to be completed: certificate expired on " + d.leaf().NotAfter.String()
	late := d.leaf().NotAfter.Add(time.Minute)
	for name, tc := range map[string]struct {
		at      time.Time
		header  func() string
		status  int
		message string
	}{
		"expired":       {late, func() string { return "Bearer " + bearer(d, d) }, 401, over},
		"valid":         {start, func() string { return "Bearer " + bearer(d, d) }, 401, stepUnauthorized},
		"another's key": {late, func() string { return "Bearer " + bearer(d, stranger) }, 401, "error validating renew token"},
		"stranger":      {late, func() string { return "Bearer " + bearer(stranger, stranger) }, 401, "error validating renew token"},
		"garbage":       {late, func() string { return "Bearer x" }, 401, "error validating renew token"},
		"an assertion":  {late, func() string { return "Bearer " + w.assertion(d, jws.ES256, nil) }, 401, "error validating renew token"},
		"basic":         {late, func() string { return "Basic x" }, 400, stepBad + "missing client certificate."},
	} {
		w.clock.set(tc.at)
		a := w.do(nil, http.MethodPost, "/1.0/renew", http.Header{"Authorization": {tc.header()}}, "")
		if a.status != tc.status || a.message() != tc.message {
			t.Errorf("%s: got %d %s", name, a.status, a.body)
		}
	}
}
