//go:build interop

package authorities

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/oauth"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// engine is fosite, the engine of Ory Hydra, behind a token endpoint.
type engine struct {
	provider fosite.OAuth2Provider
	issuer   string
}

// fositeClient is a client that is registered with one algorithm, as fosite wants it.
type fositeClient struct {
	who *credential.Credential
	alg string
}

func startFosite(t *testing.T, pki *authoritytest.PKI, clients ...fositeClient) opener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{issuer: "https://localhost:" + port}
	known := storage.NewMemoryStore()
	for _, c := range clients {
		known.Clients[c.who.Identity.ClientID] = registered(t, c)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	config := &fosite.Config{
		TokenURL: e.issuer + "/oauth2/token", AccessTokenIssuer: e.issuer, AccessTokenLifespan: time.Hour, GlobalSecret: make([]byte, 32),
		ScopeStrategy: fosite.ExactScopeStrategy, AudienceMatchingStrategy: fosite.DefaultAudienceMatchingStrategy,
	}
	signer := func(context.Context) (any, error) { return key, nil }
	strategy := &compose.CommonStrategy{CoreStrategy: compose.NewOAuth2JWTStrategy(signer, compose.NewOAuth2HMACStrategy(config), config)}
	e.provider = compose.Compose(config, known, strategy, compose.OAuth2ClientCredentialsGrantFactory)
	t.Cleanup(authoritytest.Serve(t, l, &tls.Config{Certificates: []tls.Certificate{pki.Server("localhost")}}, e))
	return opener{pki, e.issuer}
}

func registered(t *testing.T, c fositeClient) fosite.Client {
	t.Helper()
	raw, err := json.Marshal(jwks(t, c.who))
	if err != nil {
		t.Fatal(err)
	}
	keys := new(jose.JSONWebKeySet)
	if err := json.Unmarshal(raw, keys); err != nil {
		t.Fatal(err)
	}
	return &fosite.DefaultOpenIDConnectClient{
		DefaultClient: &fosite.DefaultClient{
			ID: c.who.Identity.ClientID, GrantTypes: []string{"client_credentials"}, Scopes: []string{"api"}, Audience: []string{vault},
		},
		TokenEndpointAuthMethod: "private_key_jwt", TokenEndpointAuthSigningAlgorithm: c.alg, JSONWebKeys: keys,
	}
}

// ServeHTTP is metadata by RFC 8414 and a token endpoint, as fosite's
// documentation builds it.
func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/.well-known/oauth-authorization-server":
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": e.issuer, "token_endpoint": e.issuer + "/oauth2/token"})
	case "/oauth2/token":
		e.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (e *engine) token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	session := &oauth2.JWTSession{JWTClaims: &jwt.JWTClaims{Issuer: e.issuer}, JWTHeader: &jwt.Headers{}}
	request, err := e.provider.NewAccessRequest(ctx, r, session)
	if err != nil {
		e.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	session.JWTClaims.Subject = request.GetClient().GetID()
	for _, audience := range request.GetRequestedAudience() {
		request.GrantAudience(audience)
	}
	response, err := e.provider.NewAccessResponse(ctx, request)
	if err != nil {
		e.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	e.provider.WriteAccessResponse(ctx, w, request, response)
}

func byAudience(c *oauth.Config) { c.ResourceParam = oauth.AudienceParam }

func TestFositeKeepsThePromises(t *testing.T) {
	pki := authoritytest.NewPKI(t, time.Now())
	withRSA, withEC := rsaCredential(t, pki, "device-rsa"), pki.Credential("device-ec")
	o := startFosite(t, pki, fositeClient{withRSA, "PS256"}, fositeClient{withEC, "ES256"})
	for name, who := range map[string]*credential.Credential{"PS256": withRSA, "ES256": withEC} {
		t.Run(name, func(t *testing.T) {
			for promise, test := range authoritytest.IssuerPromises() {
				t.Run(promise, func(t *testing.T) {
					test(t, authoritytest.IssuerCase{
						Issuer: o.open(t, authoritytest.NewTime(), byAudience), Credential: who, Resource: vault, Unknown: "https://unknown.example",
					})
				})
			}
		})
	}
}

// fosite answers an assertion that is out of its time with 500.
func TestFositeAndAWrongClock(t *testing.T) {
	pki := authoritytest.NewPKI(t, time.Now().Add(-24*time.Hour))
	who := pki.Credential("device-1")
	o := startFosite(t, pki, fositeClient{who, "ES256"})
	for _, step := range []time.Duration{0, 50 * time.Second, -50 * time.Second, 3 * time.Hour, -3 * time.Hour} {
		clock := authoritytest.NewTime()
		clock.Step(step)
		i := o.open(t, clock, func(c *oauth.Config) {
			byAudience(c)
			c.TokenURL = o.issuer + "/oauth2/token"
		})
		if _, err := i.Issue(t.Context(), who, vault); err != nil {
			t.Errorf("%v off: %v", step, err)
		}
	}
}

// UP12: fosite wants the one algorithm that is registered, and says so.
func TestFositeRefusesAnotherAlgorithm(t *testing.T) {
	pki := authoritytest.NewPKI(t, time.Now())
	who := rsaCredential(t, pki, "device-1")
	o := startFosite(t, pki, fositeClient{who, "RS256"})
	_, err := o.open(t, authoritytest.NewTime(), byAudience).Issue(t.Context(), who, vault)
	authoritytest.WantError(t, err, lifecycle.ClassDenied, "set alg under [token]")
	i := o.open(t, authoritytest.NewTime(), func(c *oauth.Config) {
		byAudience(c)
		c.Alg = "RS256"
	})
	if _, err := i.Issue(t.Context(), who, vault); err != nil {
		t.Error(err)
	}
}

// fosite does not know "resource" and issues a token for nobody; it takes the
// token endpoint for the audience of an assertion and refuses the issuer.
func TestFositeAskedInTheWrongWay(t *testing.T) {
	pki := authoritytest.NewPKI(t, time.Now())
	who := pki.Credential("device-1")
	o := startFosite(t, pki, fositeClient{who, "ES256"})
	_, err := o.open(t, authoritytest.NewTime(), nil).Issue(t.Context(), who, vault)
	authoritytest.WantError(t, err, lifecycle.ClassDenied, "resource_param")
	i := o.open(t, authoritytest.NewTime(), func(c *oauth.Config) {
		byAudience(c)
		c.AssertionAud = oauth.AudIssuer
	})
	if _, err := i.Issue(t.Context(), who, vault); err == nil {
		t.Error("fosite takes the issuer now: the default of assertion_aud can be thought over")
	}
}
