package oauth_test

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/oauth"
	"postern/agent/credential"
)

const (
	base     = "https://" + authoritytest.Host
	tokenURL = base + "/token"
	clientID = "11111111-2222-3333-4444-555555555555"
	resource = authoritytest.Resource
)

// double is a strict OAuth server: it refuses what a real one might forgive,
// and verifies assertions with go-jose.
type double struct {
	t *testing.T
	w *authoritytest.World

	mu       sync.Mutex
	clients  map[string]crypto.PublicKey
	algs     []jose.SignatureAlgorithm
	aud      string
	seen     map[string]bool // jti
	skew     time.Duration   // of its clock
	early    time.Duration   // tolerated
	metadata string
	requests []*http.Request // their forms are parsed
	headers  []map[string]any
	issue    func(form map[string][]string) string // audience of the token
	answer   func(rw http.ResponseWriter, r *http.Request, n int) bool
	looks    int            // at the metadata
	pki      *x509.CertPool // if set, whose client certificates are believed
}

func newDouble(t *testing.T, w *authoritytest.World, who *credential.Credential) *double {
	d := &double{
		t: t, w: w, clients: map[string]crypto.PublicKey{who.Identity.ClientID: who.Signer.Public()}, seen: map[string]bool{},
		algs: []jose.SignatureAlgorithm{jose.PS256, jose.ES256, jose.RS256}, aud: tokenURL, early: 14 * time.Second,
		metadata: `{"issuer":"` + base + `","token_endpoint":"` + tokenURL + `"}`,
	}
	w.Serve(authoritytest.Host, d)
	return d
}

func (d *double) now() time.Time { return time.Now().Add(d.skew) }

func (d *double) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rw.Header().Set("Date", d.now().UTC().Format(http.TimeFormat))
	switch {
	case strings.Contains(r.URL.Path, "/.well-known/"):
		d.looks++
		if len(r.TLS.PeerCertificates) > 0 {
			d.t.Error("the metadata was asked for with a certificate")
		}
		if r.URL.Path != "/.well-known/openid-configuration" || d.metadata == "" {
			http.NotFound(rw, r)
			return
		}
		_, _ = io.WriteString(rw, d.metadata)
	case r.Method != http.MethodPost || r.URL.Path != "/token" || r.URL.RawQuery != "":
		http.NotFound(rw, r)
	default:
		d.token(rw, r)
	}
}

func (d *double) token(rw http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		d.t.Errorf("the request is no form: %v", err)
	}
	d.requests = append(d.requests, r)
	if d.answer != nil && d.answer(rw, r, len(d.requests)) {
		return
	}
	for name, values := range r.PostForm {
		if len(values) != 1 || values[0] == "" || !slices.Contains([]string{"grant_type", "client_id", "client_assertion", "client_assertion_type", "scope", "resource", "audience"}, name) {
			d.t.Errorf("form field %s: %q", name, values)
		}
	}
	if r.PostForm.Get("grant_type") != "client_credentials" {
		oauthError(rw, 400, "unsupported_grant_type", "")
		return
	}
	if !d.authenticate(r) {
		oauthError(rw, 401, "invalid_client", "client authentication failed")
		return
	}
	audience := r.PostForm.Get("resource") + r.PostForm.Get("audience") + strings.TrimSuffix(r.PostForm.Get("scope"), "/.default")
	if d.issue != nil {
		audience = d.issue(r.PostForm)
	}
	if strings.Contains(audience, "unknown") {
		oauthError(rw, 400, "invalid_target", "unknown resource")
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(map[string]any{
		"access_token": authoritytest.JWT(fmt.Sprintf(`{"aud":%q,"jti":"%d"}`, audience, len(d.requests))), "token_type": "Bearer", "expires_in": 3600,
	})
}

func oauthError(rw http.ResponseWriter, status int, code, description string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(map[string]any{"error": code, "error_description": description})
}

func (d *double) authenticate(r *http.Request) bool {
	id := r.PostForm.Get("client_id")
	pub := d.clients[id]
	if pub == nil {
		return false
	}
	if r.PostForm.Get("client_assertion") == "" {
		peers := r.TLS.PeerCertificates
		if d.pki != nil && (len(peers) == 0 || !believed(peers, d.pki)) {
			return false
		}
		return len(peers) > 0 && len(peers[0].URIs) > 0 && peers[0].URIs[0].String() == "urn:device:"+id
	}
	if len(r.TLS.PeerCertificates) > 0 || r.PostForm.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return false
	}
	return d.assertion(r.PostForm.Get("client_assertion"), id, pub)
}

func believed(peers []*x509.Certificate, roots *x509.CertPool) bool {
	between := x509.NewCertPool()
	for _, c := range peers[1:] {
		between.AddCert(c)
	}
	options := verifyAt(roots)
	options.Intermediates = between
	_, err := peers[0].Verify(options)
	return err == nil
}

func (d *double) assertion(compact, id string, pub crypto.PublicKey) bool {
	parsed, err := jose.ParseSignedCompact(compact, d.algs)
	if err != nil {
		return false
	}
	payload, err := parsed.Verify(pub)
	if err != nil {
		return false
	}
	var claims struct {
		Iss, Sub, Aud, Jti string
		Iat, Nbf, Exp      int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		d.t.Errorf("claims: %v", err)
		return false
	}
	header := parsed.Signatures[0].Protected
	d.headers = append(d.headers, map[string]any{"alg": header.Algorithm, "kid": header.KeyID, "typ": header.ExtraHeaders["typ"], "x5t#S256": header.ExtraHeaders["x5t#S256"]})
	now := d.now()
	fresh := !d.seen[claims.Jti] && len(claims.Jti) >= 20
	d.seen[claims.Jti] = true
	early := now.Add(d.early).Unix()
	return fresh && claims.Iss == id && claims.Sub == id && claims.Aud == d.aud &&
		claims.Iat <= early && claims.Nbf <= early && claims.Exp > now.Unix() && claims.Exp <= now.Add(10*time.Minute).Unix()
}

// config asks the double.
func (d *double) config() oauth.Config {
	return oauth.Config{Issuer: base, ResourceParam: oauth.ResourceParam, Clients: d.w.Clients(), Clock: d.w.Clock}
}

func open(t *testing.T, c oauth.Config) *oauth.Issuer {
	t.Helper()
	i, err := oauth.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// inWorld makes a double and a credential whose key is two hours old.
func inWorld(t *testing.T, test func(t *testing.T, d *double, who *credential.Credential)) {
	t.Helper()
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		who := w.PKI.Credential(clientID)
		time.Sleep(2 * time.Hour) // of the bubble
		test(t, newDouble(t, w, who), who)
	})
}
