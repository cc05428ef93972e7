//go:build interop

package authorities

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/authority/oauth"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

const (
	vault   = "https://vault.azure.net"
	manager = "https://management.azure.com/"
)

// tlsPair is a server certificate for localhost with its key, as PEM.
func tlsPair(t *testing.T, pki *authoritytest.PKI) (key, cert string) {
	t.Helper()
	pair := pki.Server("localhost", "127.0.0.1")
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range pair.Certificate {
		cert += string(pemOf("CERTIFICATE", c))
	}
	return string(pemOf("PRIVATE KEY", der)), cert
}

// startOIDC runs oidc-provider with these clients and returns its issuer.
// deviceCA are the authorities of client certificates, PEM.
func startOIDC(t *testing.T, pki *authoritytest.PKI, deviceCA string, clients ...map[string]any) string {
	t.Helper()
	modules := oidcModules(t)
	key, cert := tlsPair(t, pki)
	for _, c := range clients {
		c["grant_types"], c["response_types"], c["redirect_uris"] = []string{"client_credentials"}, []string{}, []string{}
	}
	input, err := json.Marshal(map[string]any{
		"key": key, "cert": cert, "deviceCA": deviceCA, "clients": clients,
		"resources": []string{vault, manager}, "ttl": 3600, "life": serverAge.Seconds(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	p := start(t, append(input, '\n'), []string{"MODULES=" + modules}, func(line string) {
		if issuer, ok := strings.CutPrefix(line, "READY "); ok {
			ready <- issuer
		}
	}, "node", filepath.Join("testdata", "oidc-provider", "server.mjs"))
	select {
	case issuer := <-ready:
		return issuer
	case <-time.After(time.Minute):
		t.Fatalf("oidc-provider does not start:\n%s", p.said())
	}
	return ""
}

// opener makes drivers for one server.
type opener struct {
	pki    *authoritytest.PKI
	issuer string
}

func (o opener) open(t *testing.T, clock *authoritytest.Time, change func(*oauth.Config)) *oauth.Issuer {
	t.Helper()
	judge := clock.Clock()
	clients := authority.NewClients(authority.Config{Clock: judge, Roots: o.pki.Pool()})
	t.Cleanup(clients.CloseIdleConnections)
	c := oauth.Config{Issuer: o.issuer, ResourceParam: oauth.ResourceParam, Clients: clients, Clock: judge}
	if change != nil {
		change(&c)
	}
	i, err := oauth.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// rsaCredential is a credential with an RSA key. Its key is not new.
func rsaCredential(t *testing.T, pki *authoritytest.PKI, clientID string) *credential.Credential {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	who := pki.Credential(clientID)
	who.Signer, who.Chain = key, pki.Leaf(&key.PublicKey, nil, clientID, "urn:device:"+clientID)
	return who
}

func TestOIDCProviderKeepsThePromises(t *testing.T) {
	pki := authoritytest.NewPKI(t, time.Now())
	withRSA, withEC, withTLS := rsaCredential(t, pki, "device-rsa"), pki.Credential("device-ec"), pki.Credential("device-tls")
	o := opener{pki, startOIDC(t, pki, pki.RootPEM(),
		map[string]any{"client_id": "device-rsa", "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks(t, withRSA)},
		map[string]any{"client_id": "device-ec", "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks(t, withEC)},
		map[string]any{"client_id": "device-tls", "token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_san_uri": "urn:device:device-tls"},
	)}
	for name, c := range map[string]struct {
		who    *credential.Credential
		change func(*oauth.Config)
	}{
		"private_key_jwt PS256":                 {withRSA, nil},
		"private_key_jwt RS256":                 {withRSA, func(c *oauth.Config) { c.Alg = "RS256" }},
		"private_key_jwt ES256":                 {withEC, nil},
		"private_key_jwt ES256, aud the issuer": {withEC, func(c *oauth.Config) { c.AssertionAud = oauth.AudIssuer }},
		"private_key_jwt ES256 with the chain":  {withEC, func(c *oauth.Config) { c.SendX5C = true }},
		"tls_client_auth":                       {withTLS, func(c *oauth.Config) { c.Auth = oauth.TLSClientAuth }},
	} {
		t.Run(name, func(t *testing.T) {
			for promise, test := range authoritytest.IssuerPromises() {
				t.Run(promise, func(t *testing.T) {
					test(t, authoritytest.IssuerCase{
						Issuer: o.open(t, authoritytest.NewTime(), c.change), Credential: c.who, Resource: vault, Unknown: "https://unknown.example",
					})
				})
			}
		})
	}
}

// A device whose clock is wrong by hours gets its token with the second try.
func TestOIDCProviderAndAWrongClock(t *testing.T) {
	pki := authoritytest.NewPKI(t, time.Now().Add(-24*time.Hour))
	who := pki.Credential("device-1")
	o := opener{pki, startOIDC(t, pki, pki.RootPEM(),
		map[string]any{"client_id": "device-1", "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks(t, who)})}
	for _, step := range []time.Duration{0, 50 * time.Second, -50 * time.Second, 3 * time.Hour, -3 * time.Hour} {
		clock := authoritytest.NewTime()
		clock.Step(step)
		i := o.open(t, clock, func(c *oauth.Config) { c.TokenURL = o.issuer + "/token" })
		if _, err := i.Issue(t.Context(), who, manager); err != nil {
			t.Errorf("%v off: %v", step, err)
		}
	}
}

// A client that is registered for bound tokens gets what its callers cannot use.
func TestOIDCProviderAndBoundTokens(t *testing.T) {
	pki := authoritytest.NewPKI(t, time.Now())
	who := pki.Credential("device-1")
	o := opener{pki, startOIDC(t, pki, pki.RootPEM(), map[string]any{
		"client_id": "device-1", "token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_san_uri": "urn:device:device-1",
		"tls_client_certificate_bound_access_tokens": true,
	})}
	i := o.open(t, authoritytest.NewTime(), func(c *oauth.Config) { c.Auth = oauth.TLSClientAuth })
	_, err := i.Issue(t.Context(), who, vault)
	authoritytest.WantError(t, err, lifecycle.ClassDenied, "tls_client_certificate_bound_access_tokens")
}

// Deployment B: certificates by step-ca, tokens by an OAuth server that knows
// the device by the name in its certificate. A renewal with a new key needs no
// change at the server; a certificate that is over gets nothing.
func TestDeploymentBThroughARekey(t *testing.T) {
	ca := startStepCA(t)
	pki := authoritytest.NewPKI(t, time.Now())
	o := opener{pki, startOIDC(t, pki, ca.pki.RootPEM(), map[string]any{
		"client_id": "device-1", "token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_san_uri": "urn:device:device-1",
	})}
	i := o.open(t, authoritytest.NewTime(), func(c *oauth.Config) { c.Auth = oauth.TLSClientAuth })
	issue := func(with *credential.Credential) error {
		_, err := i.Issue(t.Context(), with, vault)
		return err
	}
	first := ca.enroll(t, "onboard", "device-1")
	if err := issue(first); err != nil {
		t.Fatalf("enrolled: %v", err)
	}
	current := first
	for n := range 3 {
		pending := authoritytest.NewKey(t)
		chain, err := ca.driver.Renew(t.Context(), current, pending)
		if err != nil {
			t.Fatalf("rekey %d: %v", n, err)
		}
		next := *current
		next.Signer, next.Chain = pending, chain
		if err := issue(&next); err != nil {
			t.Errorf("rekeyed %d: %v", n, err)
		}
		if err := ca.driver.Retire(t.Context(), current); err != nil {
			t.Errorf("retire %d: %v", n, err)
		}
		current = &next
	}
	if err := issue(ca.enroll(t, "onboard", "device-2")); err == nil {
		t.Error("another device got a token in this one's name")
	}
	short := ca.enroll(t, "short", "device-1")
	eventually(t, "the short certificate ends", untilOver(short))
	if err := issue(short); err == nil {
		t.Error("a certificate that is over got a token")
	} else if class := lifecycle.ClassOf(err); class != lifecycle.ClassRejected && class != lifecycle.ClassTransient {
		t.Errorf("a certificate that is over: %v", err)
	}
	if err := issue(current); err != nil {
		t.Errorf("in the end: %v", err)
	}
}
