package oauth_test

import (
	"fmt"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/jws"
	"postern/agent/authority/oauth"
	"postern/agent/authority/stepca"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// siteCase is a device that is connected to the site authority.
func siteCase(t *testing.T, w *authoritytest.World, change func(*oauth.Config)) (authoritytest.IssuerCase, *authoritytest.Site) {
	t.Helper()
	s := authoritytest.StartSite(t, w)
	clients := s.Clients()
	ca, err := stepca.New(stepca.Config{URL: s.URL, Clients: clients, Clock: w.Clock})
	if err != nil {
		t.Fatal(err)
	}
	key := authoritytest.NewKey(t)
	chain, err := ca.Enroll(t.Context(), key, s.Claim(t, "gw-1", false))
	if err != nil {
		t.Fatal(err)
	}
	who := &credential.Credential{Identity: credential.Identity{ClientID: chain[0].Subject.CommonName}, Signer: key, Chain: chain, Made: time.Now()}
	c := oauth.Config{Issuer: s.URL, Clients: clients, Clock: w.Clock}
	change(&c)
	return authoritytest.IssuerCase{
		Issuer: open(t, c), Credential: who, Resource: resource, Unknown: "https://unknown.test",
		Renewed: func(t *testing.T) *credential.Credential {
			time.Sleep(time.Hour)
			next := *who
			pending := authoritytest.NewKey(t)
			next.Signer = pending
			if next.Chain, err = ca.Renew(t.Context(), who, pending); err != nil {
				t.Fatal(err)
			}
			return &next
		},
		Withdraw: func(t *testing.T) {
			if err := s.RevokeMachine(t.Context(), "gw-1"); err != nil {
				t.Fatal(err)
			}
		},
		Age: func(*testing.T) { time.Sleep(2 * time.Hour) },
	}, s
}

func TestConformanceAtTheSiteAuthority(t *testing.T) {
	for auth, param := range map[string]string{oauth.PrivateKeyJWT: oauth.EntraScope, oauth.TLSClientAuth: oauth.ResourceParam} {
		t.Run(auth, func(t *testing.T) {
			authoritytest.Issuer(t, func(t *testing.T, w *authoritytest.World) authoritytest.IssuerCase {
				c, _ := siteCase(t, w, func(c *oauth.Config) { c.Auth, c.ResourceParam = auth, param })
				return c
			})
		})
	}
}

func TestResourceMayBeNamedInAnyWayAtTheSite(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		c, s := siteCase(t, w, func(*oauth.Config) {})
		for _, param := range []string{oauth.EntraScope, oauth.ResourceParam, oauth.AudienceParam, "scope:" + resource + "/.default"} {
			i := open(t, oauth.Config{Issuer: s.URL, ResourceParam: param, Clients: s.Clients(), Clock: w.Clock})
			if _, err := i.Issue(t.Context(), c.Credential, resource); err != nil {
				t.Errorf("%s: %v", param, err)
			}
		}
	})
}

func TestConformanceAtTheDouble(t *testing.T) {
	for _, auth := range []string{oauth.PrivateKeyJWT, oauth.TLSClientAuth} {
		t.Run(auth, func(t *testing.T) {
			authoritytest.Issuer(t, func(t *testing.T, w *authoritytest.World) authoritytest.IssuerCase {
				who := w.PKI.Credential(clientID)
				d := newDouble(t, w, who)
				d.pki = w.PKI.Pool()
				c := d.config()
				c.Auth = auth
				return authoritytest.IssuerCase{
					Issuer: open(t, c), Credential: who, Resource: resource, Unknown: "https://unknown.test",
					Withdraw: func(*testing.T) { delete(d.clients, clientID) },
					Age:      func(*testing.T) { time.Sleep(2 * time.Hour) },
				}
			})
		})
	}
}

// With the Entra preset's addresses put on the site, whose token service is an
// exact subset: the envelope's numbers become words.
func TestEntraShapeAtTheSite(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		c, s := siteCase(t, w, func(*oauth.Config) {})
		tenant := s.TenantID()
		i := open(t, oauth.Config{
			TokenURL: fmt.Sprintf("%s/%s/oauth2/v2.0/token", s.URL, tenant), Issuer: s.URL + "/" + tenant + "/v2.0",
			AssertionAud: oauth.AudIssuer, Clients: s.Clients(), Clock: w.Clock,
		})
		got, err := i.Issue(t.Context(), c.Credential, resource)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := jws.Parse(got.Value.Reveal(), 0)
		var claims struct {
			Audience jws.Audience `json:"aud"`
			Tenant   string       `json:"tid"`
			App      string       `json:"appid"`
		}
		if err != nil || parsed.Decode(&claims) != nil || !claims.Audience.Contains(resource) || claims.Tenant != tenant || claims.App != c.Credential.Identity.ClientID {
			t.Errorf("%+v, %v", claims, err)
		}
		_, err = i.Issue(t.Context(), c.Credential, "https://unknown.test")
		authoritytest.WantError(t, err, lifecycle.ClassBadResource, "resource is unknown")
		other := open(t, oauth.Config{TokenURL: s.URL + "/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token", Clients: s.Clients(), Clock: w.Clock})
		_, err = other.Issue(t.Context(), c.Credential, resource)
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "tenant is unknown")
	})
}

// Our clock is an hour off; the site takes 5 minutes. One more try and it works.
func TestWrongClockAtTheSite(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
			c, s := siteCase(t, w, func(*oauth.Config) {})
			time.Sleep(2 * time.Hour) // the site's own certificate is from now
			w.Time.Step(step)
			w.Clock = w.Time.Clock() // one that has not heard of the site yet
			i := open(t, oauth.Config{TokenURL: s.URL + "/" + s.TenantID() + "/oauth2/v2.0/token", Clients: s.Clients(), Clock: w.Clock})
			if _, err := i.Issue(t.Context(), c.Credential, resource); err != nil {
				t.Errorf("%v: %v", step, err)
			}
		})
	}
}
