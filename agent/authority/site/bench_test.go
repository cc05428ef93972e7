package site

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

// The cost of one token: authentication by assertion, signature, one commit
// with its audit record. Without the network.
func BenchmarkToken(b *testing.B) {
	w := newWorld(b)
	w.addVault()
	d := w.connect("gw")
	for b.Loop() {
		b.StopTimer()
		w.clock.add(time.Second)
		form := assertionForm(d, w.assertion(d, jws.ES256, nil), vault)
		r := httptest.NewRequest(http.MethodPost, w.tokenPath(), strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		b.StartTimer()
		if w.a.Handler().ServeHTTP(rec, r); rec.Code != http.StatusOK {
			b.Fatalf("%d %s", rec.Code, rec.Body)
		}
	}
}

// The cost of a heartbeat over a new TLS connection: nothing is written.
func BenchmarkHeartbeat(b *testing.B) {
	w := newWorld(b)
	d := w.connect("gw")
	tag := w.do(d, http.MethodGet, "/v1/machines/self/identities", nil, "").header.Get("ETag")
	header := http.Header{"If-None-Match": {tag}}
	for b.Loop() {
		if a := w.do(d, http.MethodGet, "/v1/machines/self/identities", header, ""); a.status != http.StatusNotModified {
			b.Fatal(a.status)
		}
	}
}

// The cost of a refusal to a stranger: nothing is written after the first.
func BenchmarkRefusal(b *testing.B) {
	w := newWorld(b)
	body := url.Values{"grant_type": {"client_credentials"}, "client_id": {"x"}, "resource": {vault}}.Encode()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, w.tokenPath(), strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		if w.a.Handler().ServeHTTP(rec, r); rec.Code != http.StatusUnauthorized {
			b.Fatal(rec.Code)
		}
	}
}
