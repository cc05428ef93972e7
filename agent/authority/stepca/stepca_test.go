package stepca_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/authority/stepca"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

const (
	clientID = "11111111-2222-3333-4444-555555555555"
	deviceID = "urn:device:gw-1"
)

// enrolled is a device that the double knows.
func enrolled(t *testing.T, d *double) *credential.Credential {
	t.Helper()
	key := authoritytest.NewKey(t)
	chain, err := d.driver().Enroll(t.Context(), key, claim(t, nil, clientID, deviceID))
	if err != nil {
		t.Fatal(err)
	}
	return &credential.Credential{Identity: credential.Identity{ClientID: clientID}, Signer: key, Chain: chain}
}

func TestEnrollAsksForExactlyTheNamesOfTheClaim(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		names := []string{clientID, "urn:postern:identity:o-1", "urn:postern:machine:v-1"}
		key := authoritytest.NewKey(t)
		once := claim(t, nil, names...)
		chain, err := d.driver().Enroll(t.Context(), key, store.NewSecret(" "+once.Reveal()+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		leaf := chain[0]
		if len(chain) != 2 || leaf.Subject.CommonName != clientID || len(leaf.URIs) != 2 || !key.PublicKey.Equal(leaf.PublicKey) {
			t.Errorf("got %d certificates, %v, %v", len(chain), leaf.Subject, leaf.URIs)
		}
		_, err = d.driver().Enroll(t.Context(), authoritytest.NewKey(t), once)
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "used before")
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "stepca: sign: The request lacked necessary authorization")
	})
}

func TestNamesKeepTheirKindInTheRequest(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		names := []string{"device-1", "10.0.0.1", "fe80::1", "a@b.test", "urn:device:device-1", "https://x.test/y"}
		var seen *x509.CertificateRequest
		d.answer = func(rw http.ResponseWriter, r *http.Request) bool {
			seen, _ = d.request(rw, r)
			refuse(rw, http.StatusTeapot, "enough")
			return true
		}
		_, err := d.driver().Enroll(t.Context(), authoritytest.NewKey(t), claim(t, nil, names...))
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "enough")
		if seen == nil || len(seen.DNSNames) != 1 || len(seen.IPAddresses) != 2 || len(seen.EmailAddresses) != 1 || len(seen.URIs) != 2 || seen.Subject.CommonName != "device-1" {
			t.Errorf("got %+v", seen)
		}
	})
}

func TestRenewIsARekeyWithThePendingKey(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		current := enrolled(t, d)
		time.Sleep(time.Hour) // of the bubble
		pending := authoritytest.NewKey(t)
		var first *x509.Certificate
		for range 2 { // ID5: the answer was lost, the same key is sent again
			chain, err := d.driver().Renew(t.Context(), current, pending)
			if err != nil {
				t.Fatal(err)
			}
			leaf := chain[0]
			if !pending.PublicKey.Equal(leaf.PublicKey) || !leaf.NotAfter.After(current.Leaf().NotAfter) || leaf.Subject.CommonName != clientID || leaf.URIs[0].String() != deviceID {
				t.Errorf("got %v %v %v", leaf.Subject, leaf.URIs, leaf.NotAfter)
			}
			if first != nil && first.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
				t.Error("the same certificate twice")
			}
			first = leaf
		}
		if last := d.calls[len(d.calls)-1]; last != "POST /1.0/rekey" {
			t.Errorf("called %s", last)
		}
	})
}

func TestRenewWithTheSameKeyIsAPlainRenewal(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		current := enrolled(t, d)
		chain, err := d.driver().Renew(t.Context(), current, current.Signer)
		if err != nil || chain[0].SerialNumber.Cmp(current.Leaf().SerialNumber) == 0 {
			t.Fatalf("got %v", err)
		}
		if last := d.calls[len(d.calls)-1]; last != "POST /1.0/renew" {
			t.Errorf("called %s", last)
		}
	})
}

func TestRetireRevokesTheOldCertificateByItself(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		a, old := d.driver(), enrolled(t, d)
		pending := authoritytest.NewKey(t)
		chain, err := a.Renew(t.Context(), old, pending)
		if err != nil {
			t.Fatal(err)
		}
		current := &credential.Credential{Identity: old.Identity, Signer: pending, Chain: chain}
		for range 2 { // the second time it is done already
			if err := a.Retire(t.Context(), old); err != nil {
				t.Error(err)
			}
		}
		if !d.revoked[old.Leaf().SerialNumber.String()] || len(d.revoked) != 1 {
			t.Errorf("revoked %v", d.revoked)
		}
		_, err = a.Renew(t.Context(), old, pending)
		authoritytest.WantError(t, err, lifecycle.ClassRejected, "lacked necessary authorization")
		if _, err := a.Renew(t.Context(), current, authoritytest.NewKey(t)); err != nil {
			t.Errorf("the certificate in use: %v", err)
		}
	})
}

func TestRetireOfWhatIsOverIsDone(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		message string
		class   lifecycle.Class // 0: done
	}{
		"revoked already": {400, "certificate with serial number '1' is already revoked", 0},
		"expired":         {401, "certificate expired on 2000", 0},
		"refused":         {401, unauthorized, 0},
		"bad request":     {400, "bad revocation", lifecycle.ClassDenied},
		"forbidden":       {403, "no", lifecycle.ClassDenied},
		"no database":     {501, "The requested method is not implemented", lifecycle.ClassTransient},
		"busy":            {429, "slow down", lifecycle.ClassTransient},
	} {
		t.Run(name, func(t *testing.T) {
			authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
				d := newDouble(w)
				old := enrolled(t, d)
				d.canned(c.status, nil, `{"status":1,"message":"`+c.message+`"}`)
				err := d.driver().Retire(t.Context(), old)
				if c.class == 0 && err != nil || c.class != 0 && lifecycle.ClassOf(err) != c.class {
					t.Errorf("got %v, want class %v", err, c.class)
				}
			})
		})
	}
}

// The table of authorities.md, section 4, row by row.
func TestErrorClasses(t *testing.T) {
	const text = `{"status":0,"message":"said so"}`
	for _, c := range []struct {
		name          string
		status        int
		header        http.Header
		body          string
		renew, enroll lifecycle.Class
		wait          time.Duration
		words         string
	}{
		{name: "not found", status: 404, body: text, renew: 1, enroll: 1, words: "said so"},
		{name: "internal error", status: 500, body: text, renew: 1, enroll: 1, words: "said so"},
		{name: "bad gateway", status: 502, body: "<html>\x1b[1mnginx</html>", renew: 1, enroll: 1, words: "nginx"},
		{name: "unavailable", status: 503, header: http.Header{"Retry-After": {"120"}}, body: "", renew: 1, enroll: 1, wait: 2 * time.Minute, words: "answered 503 service unavailable"},
		{name: "too many", status: 429, header: http.Header{"Retry-After": {"1000000000"}}, body: "slow down", renew: 1, enroll: 1, wait: 6 * time.Hour, words: "slow down"},
		{name: "too many, nonsense", status: 429, header: http.Header{"Retry-After": {"soon"}}, body: "slow down", renew: 1, enroll: 1, words: "slow down"},
		{name: "no content", status: 204, renew: 1, enroll: 1, words: "no content"},
		{name: "not modified", status: 304, renew: 1, enroll: 1, words: "not modified"},
		{name: "unauthorized", status: 401, body: text, renew: 3, enroll: 5, words: "said so"},
		{name: "forbidden", status: 403, body: text, renew: 3, enroll: 5, words: "said so"},
		{name: "bad request", status: 400, body: text, renew: 5, enroll: 5, words: "said so"},
		{name: "too large", status: 413, body: "", renew: 5, enroll: 5, words: "answered 413 request entity too large"},
		{name: "unknown status", status: 499, body: "", renew: 5, enroll: 5, words: "answered 499"},
		{name: "captive portal", status: 200, body: "<html>login", renew: 1, enroll: 1, words: "not the JSON"},
		{name: "empty object", status: 201, body: "{}", renew: 1, enroll: 1, words: "no certificate"},
		{name: "not PEM", status: 201, body: `{"certChain":["x"]}`, renew: 1, enroll: 1, words: "not PEM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
				d := newDouble(w)
				current := enrolled(t, d)
				d.canned(c.status, c.header, c.body)
				_, err := d.driver().Renew(t.Context(), current, authoritytest.NewKey(t))
				authoritytest.WantError(t, err, c.renew, c.words)
				authoritytest.WantError(t, err, c.renew, "stepca: rekey: ")
				checkDetails(t, err, c.wait, c.status)
				_, err = d.driver().Enroll(t.Context(), authoritytest.NewKey(t), claim(t, nil, clientID))
				authoritytest.WantError(t, err, c.enroll, c.words)
				checkDetails(t, err, c.wait, c.status)
			})
		})
	}
}

func checkDetails(t *testing.T, err error, wait time.Duration, status int) {
	t.Helper()
	var e *lifecycle.Error
	if !errors.As(err, &e) {
		return
	}
	if e.RetryAfter != wait || e.Throttled != (status == 429) {
		t.Errorf("retry after %v, throttled %v: %v", e.RetryAfter, e.Throttled, err)
	}
	if want := status == 429 || status >= 400 && status < 500 && status != 404; e.Answered != want {
		t.Errorf("%d: answered %v: %v", status, e.Answered, err)
	}
}

// 401 "certificate expired on": the health answer's Date decides.
func TestExpiryIsNotBelievedWithoutTheDate(t *testing.T) {
	for name, c := range map[string]struct {
		date  string // of /health: an offset, "none", "fails"
		doubt bool
		want  lifecycle.Class
	}{
		"clocks agree":     {"1m", false, lifecycle.ClassRejected},
		"clocks differ":    {"10m", false, lifecycle.ClassClock},
		"ours is ahead":    {"-10m", false, lifecycle.ClassClock},
		"no date":          {"none", false, lifecycle.ClassTransient},
		"no health":        {"fails", false, lifecycle.ClassTransient},
		"not synchronised": {"10m", true, lifecycle.ClassClock},
	} {
		t.Run(name, func(t *testing.T) {
			authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
				d := newDouble(w)
				current := enrolled(t, d)
				if c.doubt {
					w.Time.Doubt()
				}
				d.answer = func(rw http.ResponseWriter, r *http.Request) bool {
					if r.URL.Path != "/health" {
						rw.Header()["Date"] = nil
						refuse(rw, http.StatusUnauthorized, "The request lacked necessary authorization to be completed: certificate expired on 2000-01-01.")
						return true
					}
					if len(r.TLS.PeerCertificates) > 0 {
						t.Error("health was asked with a certificate")
					}
					switch c.date {
					case "none":
						rw.Header()["Date"] = nil
					case "fails":
						rw.WriteHeader(http.StatusBadGateway)
					default:
						by, err := time.ParseDuration(c.date)
						if err != nil {
							t.Error(err)
						}
						rw.Header().Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
					}
					return false
				}
				_, err := d.driver().Renew(t.Context(), current, authoritytest.NewKey(t))
				authoritytest.WantError(t, err, c.want, "certificate expired on")
			})
		})
	}
}

// The TLS alert: believed like the 401 if it came inside the verified
// connection (TLS 1.3), and worth a look at the clock otherwise.
func TestAlertAboutExpiry(t *testing.T) {
	for name, c := range map[string]struct {
		version uint16
		skew    time.Duration
		want    lifecycle.Class
	}{
		"TLS 1.3, clocks agree":  {tls.VersionTLS13, 0, lifecycle.ClassRejected},
		"TLS 1.3, clocks differ": {tls.VersionTLS13, time.Hour, lifecycle.ClassClock},
		"TLS 1.2, clocks agree":  {tls.VersionTLS12, 0, lifecycle.ClassTransient},
		"TLS 1.2, clocks differ": {tls.VersionTLS12, time.Hour, lifecycle.ClassClock},
	} {
		t.Run(name, func(t *testing.T) {
			authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
				current := w.PKI.Credential(clientID)
				health := func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Date", time.Now().Add(c.skew).UTC().Format(http.TimeFormat))
					_, _ = io.WriteString(rw, `{"status":"ok"}`)
				}
				w.Serve(authoritytest.Host, http.HandlerFunc(health), func(config *tls.Config) {
					config.MinVersion, config.MaxVersion = c.version, c.version
					config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, w.PKI.Pool()
					config.Time = func() time.Time { return time.Now().AddDate(0, 0, 91) }
				})
				a, err := stepca.New(stepca.Config{URL: base, Clients: w.Clients(), Clock: w.Clock})
				if err != nil {
					t.Fatal(err)
				}
				_, err = a.Renew(t.Context(), current, authoritytest.NewKey(t))
				authoritytest.WantError(t, err, c.want, "expired certificate")
				_, err = a.Assignments(t.Context(), current, "")
				authoritytest.WantError(t, err, c.want, "expired certificate")
				if err := a.Retire(t.Context(), current); err != nil {
					t.Errorf("retire of what is over: %v", err)
				}
			})
		})
	}
}

// ID1: answers that would break the identity. Names, dates and trust are
// credential.VerifyChain's.
func TestID1BadCertificateAnswersAreRefused(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		current := enrolled(t, d)
		pending := authoritytest.NewKey(t)
		good := w.PKI.Leaf(&pending.PublicKey, nil, clientID)
		leaf, ca := pemOf(good[0]), pemOf(good[1])
		foreign := w.PKI.Leaf(&authoritytest.NewKey(t).PublicKey, nil, clientID)
		chain := func(texts ...string) string {
			raw, err := json.Marshal(map[string]any{"certChain": texts})
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
		for name, c := range map[string]struct{ body, words string }{
			"another key":          {chain(pemOf(foreign[0]), ca), "another key"},
			"chain of 20":          {chain(slices.Repeat([]string{leaf}, 20)...), "more than 10"},
			"20 in one":            {chain(strings.Repeat(leaf, 20)), "more than 10"},
			"a megabyte":           {chain(strings.Repeat(leaf, 1<<20/len(leaf))), "more than 65536 bytes"},
			"a key in it":          {chain(leaf, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "not PEM"},
			"text behind":          {chain(leaf+"hello", ca), "not PEM"},
			"broken DER":           {chain("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cannot be read"},
			"no chain":             {`{"crt":"","ca":"","certChain":[]}`, "no certificate"},
			"chain is text":        {`{"certChain":"` + "x" + `"}`, "not the JSON"},
			"leaf is not the head": {chain(ca, leaf), "another key"},
		} {
			d.canned(http.StatusCreated, nil, c.body)
			_, err := d.driver().Renew(t.Context(), current, pending)
			if err == nil {
				t.Errorf("%s was taken", name)
				continue
			}
			authoritytest.WantError(t, err, lifecycle.ClassTransient, c.words)
		}
		for name, body := range map[string]string{
			"chain":             chain(leaf, ca),
			"all in one":        chain(leaf + ca),
			"crt and ca":        `{"crt":` + quote(t, leaf) + `,"ca":` + quote(t, ca) + `}`,
			"leaf alone":        chain(leaf),
			"more than we know": strings.Replace(chain(leaf, ca), "{", `{"tlsOptions":{"a":[1]},`, 1),
		} {
			d.canned(http.StatusCreated, nil, body)
			if got, err := d.driver().Renew(t.Context(), current, pending); err != nil || !got[0].Equal(good[0]) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func quote(t *testing.T, s string) string {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestUP3BadServersGetNoClaimAndNoCertificate(t *testing.T) {
	good := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, `{"status":"ok"}`) })
	driver := func(trial authoritytest.Trial) (*stepca.Authority, func(), error) {
		clients := authority.NewClients(trial.Config)
		a, err := stepca.New(stepca.Config{URL: trial.URL, Clients: clients, Clock: trial.Config.Clock})
		return a, clients.CloseIdleConnections, err
	}
	t.Run("revoke", func(t *testing.T) {
		authoritytest.BadServers(t, good, func(ctx context.Context, trial authoritytest.Trial) error {
			a, done, err := driver(trial)
			if err != nil {
				return err
			}
			defer done()
			return a.Retire(ctx, trial.Credential)
		})
	})
	t.Run("sign", func(t *testing.T) {
		authoritytest.BadServers(t, good, func(ctx context.Context, trial authoritytest.Trial) error {
			a, done, err := driver(trial)
			if err != nil {
				return err
			}
			defer done()
			_, err = a.Enroll(ctx, trial.Credential.Signer, claim(t, nil, trial.Credential.Identity.ClientID))
			if err != nil && strings.Contains(err.Error(), "no certificate") {
				return nil // the good server signs nothing, but it was asked
			}
			return err
		})
	})
}

func TestURLMustBeAnAuthoritys(t *testing.T) {
	for _, bad := range []string{"", "ca.test", "http://ca.test", "https://", "https://u:p@ca.test", "https://ca.test?x=1", "https://ca.test#f", "https://a b"} {
		if _, err := stepca.New(stepca.Config{URL: bad}); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"https://ca.test", "https://ca.test:8443/", "https://[::1]:9000/ca"} {
		if _, err := stepca.New(stepca.Config{URL: good}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestHeartbeatShowsNoCertificate(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		d.answer = func(_ http.ResponseWriter, r *http.Request) bool {
			if len(r.TLS.PeerCertificates) > 0 || r.Method != http.MethodGet || r.ContentLength > 0 {
				t.Errorf("asked %s with %d certificates", r.Method, len(r.TLS.PeerCertificates))
			}
			return false
		}
		if err := d.driver().Heartbeat(t.Context()); err != nil {
			t.Error(err)
		}
		d.answer = func(rw http.ResponseWriter, _ *http.Request) bool {
			refuse(rw, http.StatusInternalServerError, "database is gone")
			return true
		}
		authoritytest.WantError(t, d.driver().Heartbeat(t.Context()), lifecycle.ClassTransient, "database is gone")
	})
}
