//go:build interop

package authorities

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/authority/jws"
	"postern/agent/authority/site"
	"postern/agent/authority/stepca"
	"postern/agent/credential"
	"postern/store"
)

// peer is an authority that speaks step-ca's API.
type peer struct {
	url     string
	root    string // fingerprint
	clients *authority.Clients
	claim   func(t *testing.T) store.Secret
}

func (ca *stepCA) peer() peer {
	n := 0
	return peer{ca.url, ca.pki.RootSHA256(), ca.clients, func(t *testing.T) store.Secret {
		n++
		return ca.claim(t, "onboard", fmt.Sprintf("device-%d", n))
	}}
}

// startSite runs the site authority on loopback.
func startSite(t *testing.T) peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	base := "https://localhost:" + port
	a, err := site.Open(t.Context(), t.TempDir(), site.Options{URL: base})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, l) }()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(a.RootPEM()))
	clients := authority.NewClients(authority.Config{Clock: authoritytest.NewTime().Clock(), Roots: pool})
	t.Cleanup(func() {
		clients.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	n := 0
	return peer{base, a.RootSHA256(), clients, func(t *testing.T) store.Secret {
		n++
		claim, err := a.CreateClaim(t.Context(), site.ClaimRequest{Machine: fmt.Sprintf("gw-%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		return claim.Token
	}}
}

// own are the parts of a message that are an authority's own.
var own = regexp.MustCompile(`\d{20,}|\[[^\]]*\]`)

// line is one answer with what differs by nature masked.
type line struct {
	call, status, message, members string
}

// scribe plays the same calls to a peer and writes down what it answers.
type scribe struct {
	t     *testing.T
	peer  peer
	lines []line
}

// call makes one call; body is JSON unless it is a string.
func (s *scribe) call(name, method, path string, body any, with *credential.Credential) []byte {
	s.t.Helper()
	var raw []byte
	switch b := body.(type) {
	case nil:
	case string:
		raw = []byte(b)
	default:
		var err error
		if raw, err = json.Marshal(b); err != nil {
			s.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.peer.url+path, bytes.NewReader(raw))
	if err != nil {
		s.t.Fatal(err)
	}
	client := s.peer.clients.Plain()
	if with != nil {
		client = s.peer.clients.With(with.TLS(), authority.Address(req.URL))
	}
	resp, err := authority.Do(client, req, name, authority.BodyLimit)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(resp.Body, &answer); err != nil {
		answer = map[string]any{"text": strings.TrimSpace(string(resp.Body))}
	}
	message, _ := answer["message"].(string)
	var members []string
	for m := range answer {
		members = append(members, m)
	}
	slices.Sort(members)
	message = own.ReplaceAllString(message, "…") // names and serial numbers
	s.lines = append(s.lines, line{name, fmt.Sprint(resp.Status), message, strings.Join(members, " ")})
	return resp.Body
}

// csr is a request in PEM by the names of a claim, unless change says otherwise.
func (s *scribe) csr(key *ecdsa.PrivateKey, claim store.Secret, change func(*x509.CertificateRequest)) string {
	s.t.Helper()
	c, err := stepca.ParseClaim(claim)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: c.Subject}}
	for _, name := range c.SANs {
		if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(pemOf("CERTIFICATE REQUEST", der))
}

// signed reads the chain out of an answer.
func (s *scribe) signed(body []byte, key crypto.Signer) *credential.Credential {
	s.t.Helper()
	var answer struct {
		Chain []string `json:"certChain"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Chain) < 2 {
		s.t.Fatalf("%v: %s", err, body)
	}
	out := &credential.Credential{Signer: key}
	for _, text := range answer.Chain {
		block, _ := pem.Decode([]byte(text))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			s.t.Fatal(err)
		}
		out.Chain = append(out.Chain, cert)
	}
	return out
}

// play is the script.
func (s *scribe) play() []line {
	s.t.Helper()
	s.call("health", "GET", "/health", nil, nil)
	s.call("root", "GET", "/root/"+s.peer.root, nil, nil)
	s.call("version", "GET", "/version", nil, nil)
	s.call("a path that is none", "GET", "/nothing", nil, nil)

	key, claim := authoritytest.NewKey(s.t), s.peer.claim(s.t)
	good := map[string]string{"csr": s.csr(key, claim, nil), "ott": claim.Reveal()}
	device := s.signed(s.call("sign", "POST", "/1.0/sign", good, nil), key)
	s.call("sign again", "POST", "/1.0/sign", good, nil)
	s.call("sign, unversioned, again", "POST", "/sign", good, nil)
	s.badSigns()

	next := authoritytest.NewKey(s.t)
	rekey := map[string]string{"csr": s.csr(next, claim, nil)}
	s.call("renew without a certificate", "POST", "/1.0/renew", nil, nil)
	s.call("rekey without a certificate", "POST", "/1.0/rekey", rekey, nil)
	s.call("renew", "POST", "/1.0/renew", nil, device)
	renewed := s.signed(s.call("rekey", "POST", "/1.0/rekey", rekey, device), next)
	s.call("rekey without a request", "POST", "/1.0/rekey", map[string]string{}, device)
	s.call("rekey with nonsense", "POST", "/1.0/rekey", "nonsense", device)
	s.call("renew with the old one", "POST", "/1.0/renew", nil, device)

	serial := renewed.Leaf().SerialNumber.String()
	revoke := map[string]any{"serial": serial, "reasonCode": 4, "reason": "superseded", "passive": true}
	s.call("revoke another's", "POST", "/1.0/revoke", revoke, device)
	s.call("revoke actively", "POST", "/1.0/revoke", map[string]any{"serial": serial, "reasonCode": 4, "passive": false}, renewed)
	s.call("revoke without a serial", "POST", "/1.0/revoke", map[string]any{"reasonCode": 4, "passive": true}, renewed)
	s.call("revoke for no reason", "POST", "/1.0/revoke", map[string]any{"serial": serial, "reasonCode": 77, "passive": true}, renewed)
	s.call("revoke", "POST", "/1.0/revoke", revoke, renewed)
	s.call("renew what is revoked", "POST", "/1.0/renew", nil, renewed)
	s.call("rekey what is revoked", "POST", "/1.0/rekey", rekey, renewed)
	s.call("renew with the old one, after all", "POST", "/1.0/renew", nil, device)
	return s.lines
}

// badSigns are requests that must be refused, each with a claim that is good.
func (s *scribe) badSigns() {
	s.t.Helper()
	key := authoritytest.NewKey(s.t)
	foreign, err := jws.Sign(key, jws.ES256, map[string]any{"kid": "unknown"}, map[string]any{
		"iss": "onboard", "aud": s.peer.url + "/1.0/sign", "sub": "x", "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*x509.CertificateRequest)
	}{
		{"sign for another name", func(r *x509.CertificateRequest) { r.Subject.CommonName = "somebody-else" }},
		{"sign for fewer names", func(r *x509.CertificateRequest) { r.URIs = nil }},
		{"sign for more names", func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "more.test") }},
		{"sign for an address", func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }},
	} {
		claim := s.peer.claim(s.t)
		s.call(c.name, "POST", "/1.0/sign", map[string]string{"csr": s.csr(key, claim, c.change), "ott": claim.Reveal()}, nil)
	}
	claim := s.peer.claim(s.t)
	csr := s.csr(key, claim, nil)
	for _, c := range []struct {
		name string
		body any
	}{
		{"sign with nonsense", "nonsense"},
		{"sign with nothing", map[string]string{}},
		{"sign without a request", map[string]string{"ott": claim.Reveal()}},
		{"sign without a claim", map[string]string{"csr": csr}},
		{"sign with a broken request", map[string]string{"csr": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "ott": claim.Reveal()}},
		{"sign with a password", map[string]string{"csr": csr, "ott": "password"}},
		{"sign with a foreign claim", map[string]string{"csr": csr, "ott": foreign}},
		{"sign for too long", map[string]string{"csr": csr, "ott": claim.Reveal(), "notAfter": "99999h"}},
	} {
		s.call(c.name, "POST", "/1.0/sign", c.body, nil)
	}
}

// The site authority's subset of step-ca's API is exact: the same script gets
// the same statuses and messages from both.
func TestSiteAnswersAsStepCADoes(t *testing.T) {
	ca := startStepCA(t)
	want := (&scribe{t: t, peer: ca.peer()}).play()
	got := (&scribe{t: t, peer: startSite(t)}).play()
	if len(want) != 34 || len(got) != len(want) {
		t.Fatalf("%d calls of 34, %d at the site", len(want), len(got))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s:\n site    %s %q [%s]\n step-ca %s %q [%s]", want[i].call,
				got[i].status, got[i].message, got[i].members, want[i].status, want[i].message, want[i].members)
		}
	}
}
