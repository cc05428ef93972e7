package stepca_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/jws"
	"postern/agent/authority/stepca"
	"postern/store"
)

const base = "https://" + authoritytest.Host

// double is a strict stand-in for step-ca: it answers what step-ca v0.30.2 was
// measured to answer, and checks more than it does.
type double struct {
	w *authoritytest.World

	mu      sync.Mutex
	used    map[string]bool // one-time tokens
	revoked map[string]bool // serials
	calls   []string
	// answer, if set, comes first; false lets the call go on.
	answer func(rw http.ResponseWriter, r *http.Request) bool
	list   string
	etag   string
}

func newDouble(w *authoritytest.World) *double {
	d := &double{w: w, used: map[string]bool{}, revoked: map[string]bool{}}
	w.Serve(authoritytest.Host, d)
	return d
}

func (d *double) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, r.Method+" "+r.URL.Path)
	if d.answer != nil && d.answer(rw, r) {
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /health":
		_, _ = io.WriteString(rw, `{"status":"ok"}`)
	case "POST /1.0/sign":
		d.sign(rw, r)
	case "POST /1.0/renew", "POST /1.0/rekey":
		d.renew(rw, r)
	case "POST /1.0/revoke":
		d.revoke(rw, r)
	case "GET /v1/machines/self/identities":
		d.identities(rw, r)
	case "GET /root/" + d.w.PKI.RootSHA256():
		_ = json.NewEncoder(rw).Encode(map[string]string{"ca": d.w.PKI.RootPEM()})
	default:
		refuse(rw, http.StatusNotFound, "404 page not found")
	}
}

func refuse(rw http.ResponseWriter, status int, message string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(map[string]any{"status": status, "message": message})
}

const unauthorized = "The request lacked necessary authorization to be completed. Please see the certificate authority logs for more info."

// peer is the certificate of the caller; nil was answered.
func (d *double) peer(rw http.ResponseWriter, r *http.Request) *x509.Certificate {
	if len(r.TLS.PeerCertificates) == 0 {
		refuse(rw, http.StatusBadRequest, "missing client certificate")
		return nil
	}
	leaf := r.TLS.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: d.w.PKI.Pool(), Intermediates: between, CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		refuse(rw, http.StatusUnauthorized, unauthorized)
		return nil
	}
	if now := time.Now(); now.After(leaf.NotAfter) {
		refuse(rw, http.StatusUnauthorized, "The request lacked necessary authorization to be completed: certificate expired on "+leaf.NotAfter.String()+".")
		return nil
	}
	if d.revoked[leaf.SerialNumber.String()] {
		refuse(rw, http.StatusUnauthorized, unauthorized)
		return nil
	}
	return leaf
}

func (d *double) request(rw http.ResponseWriter, r *http.Request) (csr *x509.CertificateRequest, ott string) {
	var body struct {
		CSR string `json:"csr"`
		OTT string `json:"ott"`
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil || r.Header.Get("Content-Type") != "application/json" {
		refuse(rw, http.StatusBadRequest, fmt.Sprintf("error decoding json: %v", err))
		return nil, ""
	}
	block, rest := pem.Decode([]byte(body.CSR))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		refuse(rw, http.StatusBadRequest, "error decoding csr")
		return nil, ""
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		refuse(rw, http.StatusBadRequest, "invalid csr")
		return nil, ""
	}
	return csr, body.OTT
}

func (d *double) sign(rw http.ResponseWriter, r *http.Request) {
	csr, ott := d.request(rw, r)
	if csr == nil {
		return
	}
	claim, err := stepca.ParseClaim(store.NewSecret(ott))
	switch {
	case err != nil || d.used[ott]:
		refuse(rw, http.StatusUnauthorized, unauthorized)
	case csr.Subject.CommonName != claim.Subject || !slices.Equal(namesOf(csr.DNSNames, csr), claim.SANs):
		refuse(rw, http.StatusForbidden, "The request was forbidden by the certificate authority: certificate request does not contain the valid names.")
	default:
		d.used[ott] = true
		d.issue(rw, csr.PublicKey, claim.SANs)
	}
}

func namesOf(dns []string, csr *x509.CertificateRequest) []string {
	names := slices.Clone(dns)
	for _, u := range csr.URIs {
		names = append(names, u.String())
	}
	return names
}

func (d *double) renew(rw http.ResponseWriter, r *http.Request) {
	leaf := d.peer(rw, r)
	if leaf == nil {
		return
	}
	pub := leaf.PublicKey
	if strings.HasSuffix(r.URL.Path, "rekey") {
		csr, _ := d.request(rw, r)
		if csr == nil {
			return
		}
		pub = csr.PublicKey
	} else if n, _ := io.Copy(io.Discard, r.Body); n > 0 {
		refuse(rw, http.StatusBadRequest, "renew takes no body")
		return
	}
	names := slices.Clone(leaf.DNSNames)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	d.issue(rw, pub, names)
}

func (d *double) issue(rw http.ResponseWriter, pub any, names []string) {
	now := time.Now()
	chain := d.w.PKI.Leaf(pub, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = now.Add(-time.Minute), now.Add(90*24*time.Hour)
	}, names...)
	var texts []string
	for _, c := range chain {
		texts = append(texts, pemOf(c))
	}
	rw.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(rw).Encode(map[string]any{"crt": texts[0], "ca": texts[1], "certChain": texts, "tlsOptions": map[string]any{}})
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (d *double) revoke(rw http.ResponseWriter, r *http.Request) {
	leaf := d.peer(rw, r)
	if leaf == nil {
		return
	}
	var body struct {
		Serial     string `json:"serial"`
		ReasonCode int    `json:"reasonCode"`
		Reason     string `json:"reason"`
		Passive    bool   `json:"passive"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || !body.Passive || body.ReasonCode != 4 {
		refuse(rw, http.StatusBadRequest, "bad revocation")
		return
	}
	if body.Serial != leaf.SerialNumber.String() {
		refuse(rw, http.StatusUnauthorized, unauthorized)
		return
	}
	d.revoked[body.Serial] = true
	_, _ = io.WriteString(rw, `{"status":"ok"}`)
}

func (d *double) identities(rw http.ResponseWriter, r *http.Request) {
	if d.list == "" {
		refuse(rw, http.StatusNotFound, "404 page not found")
		return
	}
	if d.peer(rw, r) == nil {
		return
	}
	rw.Header().Set("ETag", d.etag)
	if r.Header.Get("If-None-Match") == d.etag && d.etag != "" {
		rw.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = io.WriteString(rw, d.list)
}

// driver is the one under test.
func (d *double) driver() *stepca.Authority {
	d.w.T.Helper()
	a, err := stepca.New(stepca.Config{URL: base, Clients: d.w.Clients(), Clock: d.w.Clock})
	if err != nil {
		d.w.T.Fatal(err)
	}
	return a
}

var serial int

// claim mints a one-time token for the names; the first is the subject.
func claim(t *testing.T, change map[string]any, names ...string) store.Secret {
	t.Helper()
	serial++
	claims := map[string]any{
		"iss": "onboard", "aud": base + "/1.0/sign", "sub": names[0], "sans": names, "jti": fmt.Sprint(serial),
		"exp": time.Now().Add(time.Hour).Unix(), "sha": strings.Repeat("ab", 32),
	}
	for k, v := range change {
		if v == nil {
			delete(claims, k)
		} else {
			claims[k] = v
		}
	}
	token, err := jws.Sign(authoritytest.NewKey(t), jws.ES256, map[string]any{"kid": "k"}, claims)
	if err != nil {
		t.Fatal(err)
	}
	return store.NewSecret(token)
}

// canned answers every call but /health with one status and body.
func (d *double) canned(status int, header http.Header, body string) {
	d.answer = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/health" {
			return false
		}
		for k, v := range header {
			rw.Header()[k] = v
		}
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
		return true
	}
}
