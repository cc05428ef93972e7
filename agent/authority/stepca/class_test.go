package stepca_test

import (
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/stepca"
	"postern/agent/lifecycle"
)

// The table of firmware-notes/authorities.md, row by row.
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
		n := new(big.Int).SetBit(big.NewInt(1), 4999, 1)
		longKey := w.PKI.Leaf(&rsa.PublicKey{N: n, E: 65537}, nil, clientID)
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
			"RSA of 5000 bits":     {chain(leaf, pemOf(longKey[0])), "more than 4096 bits"},
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
