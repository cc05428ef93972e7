package oauth_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/authority/oauth"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
)

func TestTokenByAssertionAndByCertificate(t *testing.T) {
	for _, auth := range []string{"", oauth.PrivateKeyJWT, oauth.TLSClientAuth} {
		inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
			c := d.config()
			c.Auth = auth
			i := open(t, c)
			for range 3 {
				got, err := i.Issue(t.Context(), who, resource)
				if err != nil || got.Value.Empty() || got.ExpiresIn != time.Hour {
					t.Fatalf("%s: got %v, %v", auth, got, err)
				}
			}
			if d.looks != 1 {
				t.Errorf("%d looks at the metadata", d.looks)
			}
			if len(d.requests) != 3 {
				t.Errorf("%d requests", len(d.requests))
			}
		})
	}
}

func TestAssertionHeader(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		c := d.config()
		c.SendX5C = true
		if _, err := open(t, c).Issue(t.Context(), who, resource); err != nil {
			t.Fatal(err)
		}
		h := d.headers[0]
		if h["alg"] != "ES256" || h["kid"] != who.Thumbprint() || h["x5t#S256"] != who.Thumbprint() || h["typ"] != "JWT" {
			t.Errorf("got %v", h)
		}
		parsed, err := jose.ParseSignedCompact(d.requests[0].PostForm.Get("client_assertion"), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		roots := d.w.PKI.Pool()
		chains, err := parsed.Signatures[0].Protected.Certificates(verifyAt(roots))
		if err != nil || !chains[0][0].Equal(who.Leaf()) {
			t.Errorf("x5c: %v", err)
		}
	})
}

func TestAlgorithmIsTheKeysUnlessSet(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for alg, want := range map[string]string{"": "PS256", "auto": "PS256", "PS256": "PS256", "RS256": "RS256"} {
		inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
			mine := *who
			mine.Signer, mine.Chain = key, d.w.PKI.Leaf(&key.PublicKey, nil, clientID)
			d.clients[clientID] = &key.PublicKey
			c := d.config()
			c.Alg = alg
			if _, err := open(t, c).Issue(t.Context(), &mine, resource); err != nil {
				t.Fatal(err)
			}
			if got := d.headers[0]["alg"]; got != want {
				t.Errorf("%q: got %v, want %s", alg, got, want)
			}
			c.Alg = "ES256"
			_, err := open(t, c).Issue(t.Context(), &mine, resource)
			authoritytest.WantError(t, err, lifecycle.ClassDenied, "does not fit the algorithm")
		})
	}
}

func TestUP12RefusedAlgorithmIsNamedAndNoOtherIsTried(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		d.answer = func(rw http.ResponseWriter, _ *http.Request, _ int) bool {
			oauthError(rw, 401, "invalid_client", "The OAuth 2.0 Client enforces signing algorithm 'RS256'.")
			return true
		}
		_, err := open(t, d.config()).Issue(t.Context(), who, resource)
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "set alg under [token]")
		if len(d.requests) != 1 {
			t.Errorf("%d tries", len(d.requests))
		}
	})
}

func TestEntraTakesRSAKeysOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		c := d.config()
		c.Preset, c.Tenant, c.TokenURL = oauth.Entra, "t", tokenURL
		_, err := open(t, c).Issue(t.Context(), who, resource)
		authoritytest.WantError(t, err, lifecycle.ClassDenied, "RSA-2048")
		if len(d.requests) > 0 {
			t.Error("it was asked all the same")
		}
	})
}

func TestResourceIsNamedAsTheServerWantsIt(t *testing.T) {
	for param, want := range map[string][2]string{
		"":                  {"scope", "https://management.test//.default"},
		oauth.EntraScope:    {"scope", "https://management.test//.default"},
		oauth.ResourceParam: {"resource", "https://management.test/"},
		oauth.AudienceParam: {"audience", "https://management.test/"},
		"scope:api.read":    {"scope", "api.read"},
	} {
		inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
			d.issue = func(map[string][]string) string { return "https://management.test/" }
			c := d.config()
			c.ResourceParam = param
			if _, err := open(t, c).Issue(t.Context(), who, "https://management.test/"); err != nil {
				t.Fatal(err)
			}
			form := d.requests[0].PostForm
			for _, name := range []string{"scope", "resource", "audience"} {
				if got := form.Get(name); name == want[0] && got != want[1] || name != want[0] && got != "" {
					t.Errorf("%q: %s=%q, want %v", param, name, got, want)
				}
			}
		})
	}
}

// With entra_scope the audience of a v2 token is the resource's GUID.
func TestAudienceMayBeAnotherOnlyWithEntraScope(t *testing.T) {
	for param, ok := range map[string]bool{oauth.EntraScope: true, oauth.ResourceParam: false, oauth.AudienceParam: false, "scope:x": false} {
		inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
			d.issue = func(map[string][]string) string { return "cfa8b339-82a2-471a-a3c9-0fc0be7a4093" }
			c := d.config()
			c.ResourceParam = param
			_, err := open(t, c).Issue(t.Context(), who, resource)
			if ok != (err == nil) {
				t.Errorf("%s: %v", param, err)
			}
			if !ok {
				authoritytest.WantError(t, err, lifecycle.ClassDenied, "not for the resource")
			}
			d.issue = func(map[string][]string) string { return "" } // fosite ignores what it does not know
			_, err = open(t, c).Issue(t.Context(), who, resource)
			authoritytest.WantError(t, err, lifecycle.ClassDenied, "resource_param")
		})
	}
}

func TestResourceMustBeOneWord(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		for _, bad := range []string{"", "a b", "a\nb", "ä", "a\x00", strings.Repeat("a", 2049)} {
			_, err := open(t, d.config()).Issue(t.Context(), who, bad)
			authoritytest.WantError(t, err, lifecycle.ClassBadResource, "resource")
		}
		if len(d.w.Net.Dialled()) > 0 {
			t.Error("it was asked for")
		}
		if _, err := open(t, d.config()).Issue(t.Context(), who, strings.Repeat("a", 2048)); err != nil {
			t.Error(err)
		}
	})
}

func TestAssertionMayNameTheIssuer(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		d.aud = base
		c := d.config()
		c.AssertionAud = oauth.AudIssuer
		if _, err := open(t, c).Issue(t.Context(), who, resource); err != nil {
			t.Error(err)
		}
		c.TokenURL = tokenURL // configured: the metadata is not asked for
		d.looks = 0
		if _, err := open(t, c).Issue(t.Context(), who, resource); err != nil || d.looks > 0 {
			t.Errorf("%d looks, %v", d.looks, err)
		}
	})
}

// The table's fourth row: a clock that is wrong is put right by the answer's
// Date, with one more try and a fresh assertion.
func TestWrongClockCostsOneMoreTry(t *testing.T) {
	for name, c := range map[string]struct {
		skew  time.Duration
		tries int
	}{
		"right": {0, 1}, "30 s behind": {30 * time.Second, 1}, "14 s ahead": {-14 * time.Second, 1}, "50 s ahead": {-50 * time.Second, 1},
		"an hour behind": {time.Hour, 2}, "an hour ahead": {-time.Hour, 2}, "26 years behind": {26 * 365 * 24 * time.Hour, 2}, "two days ahead": {-48 * time.Hour, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
				d.skew = c.skew
				config := d.config()
				config.TokenURL = tokenURL // so that no metadata shows the time first
				i := open(t, config)
				if _, err := i.Issue(t.Context(), who, resource); err != nil {
					t.Fatal(err)
				}
				if len(d.requests) != c.tries {
					t.Errorf("%d tries, want %d", len(d.requests), c.tries)
				}
				if _, err := i.Issue(t.Context(), who, resource); err != nil || len(d.requests) != c.tries+1 {
					t.Errorf("the next call: %d tries, %v", len(d.requests), err)
				}
			})
		})
	}
}

// fosite answers such an assertion with 500.
func TestSkewComesBeforeServerErrors(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		d.skew = time.Hour
		d.answer = func(rw http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 1 {
				oauthError(rw, 500, "error", "The error is unrecognizable")
			}
			return n == 1
		}
		c := d.config()
		c.TokenURL = tokenURL
		if _, err := open(t, c).Issue(t.Context(), who, resource); err != nil || len(d.requests) != 2 {
			t.Errorf("%d tries, %v", len(d.requests), err)
		}
	})
}

func TestClockThatCannotBeCaughtIsClassClock(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		d.answer = func(rw http.ResponseWriter, _ *http.Request, n int) bool {
			rw.Header().Set("Date", time.Now().Add(time.Duration(n)*time.Hour).UTC().Format(http.TimeFormat))
			oauthError(rw, 401, "invalid_client", "assertion is not within its valid time range")
			return true
		}
		c := d.config()
		c.TokenURL = tokenURL
		_, err := open(t, c).Issue(t.Context(), who, resource)
		authoritytest.WantError(t, err, lifecycle.ClassClock, "invalid_client")
		if len(d.requests) != 2 {
			t.Errorf("%d tries", len(d.requests))
		}
		// Without an assertion there is no time in the request that could be wrong.
		c.Auth = oauth.TLSClientAuth
		_, err = open(t, c).Issue(t.Context(), who, resource)
		authoritytest.WantError(t, err, lifecycle.ClassRejected, "invalid_client")
		if len(d.requests) != 3 {
			t.Errorf("%d tries", len(d.requests))
		}
	})
}

func TestNewKeyIsNotRejectedForAnHour(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		delete(d.clients, clientID)
		fresh := *who
		key := authoritytest.NewKey(t)
		fresh.Signer, fresh.Made = key, time.Now()
		i := open(t, d.config())
		_, err := i.Issue(t.Context(), &fresh, resource)
		authoritytest.WantError(t, err, lifecycle.ClassTransient, "does not know the new key yet")
		if !errors.Is(err, token.ErrNotReplicated) {
			t.Error("the broker would not know that it is the key")
		}
		renewed := *who // a plain renewal: the key is old, the certificate new
		renewed.Chain = d.w.PKI.Leaf(who.Signer.Public(), nil, clientID)
		renewed.Chain[0].NotBefore = time.Now().Add(-time.Minute)
		_, err = i.Issue(t.Context(), &renewed, resource)
		authoritytest.WantError(t, err, lifecycle.ClassTransient, "does not know")
		time.Sleep(time.Hour)
		_, err = i.Issue(t.Context(), &fresh, resource)
		authoritytest.WantError(t, err, lifecycle.ClassRejected, "invalid_client")
	})
}

func TestUP4ToUP8BadAnswers(t *testing.T) {
	authoritytest.TokenAnswers(t, func(t *testing.T, w *authoritytest.World, url string) token.Issuer {
		return open(t, oauth.Config{TokenURL: url, ResourceParam: oauth.ResourceParam, Clients: w.Clients(), Clock: w.Clock})
	})
}

func TestUP3BadServersGetNoAssertionAndNoCertificate(t *testing.T) {
	good := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil && (r.PostForm.Has("client_assertion") || len(r.TLS.PeerCertificates) > 0) {
			_, _ = rw.Write([]byte(`{"access_token":"a","token_type":"Bearer","expires_in":60}`))
		}
	})
	for _, auth := range []string{oauth.PrivateKeyJWT, oauth.TLSClientAuth} {
		t.Run(auth, func(t *testing.T) {
			authoritytest.BadServers(t, good, func(ctx context.Context, trial authoritytest.Trial) error {
				clients := authority.NewClients(trial.Config)
				defer clients.CloseIdleConnections()
				i, err := oauth.New(oauth.Config{TokenURL: trial.URL + "/token", Auth: auth, Clients: clients, Clock: trial.Config.Clock})
				if err != nil {
					return err
				}
				_, err = i.Issue(ctx, trial.Credential, resource)
				return err
			})
		})
	}
}

// The row about TLS alerts: believed if it came inside the verified connection.
func TestAlertAboutOurCertificate(t *testing.T) {
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
				w.Serve(authoritytest.Host, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Date", time.Now().Add(c.skew).UTC().Format(http.TimeFormat))
				}), func(config *tls.Config) {
					config.MinVersion, config.MaxVersion = c.version, c.version
					config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, w.PKI.Pool()
					config.Time = func() time.Time { return time.Now().AddDate(0, 0, 91) }
				})
				for _, issuer := range []string{"", base} {
					i := open(t, oauth.Config{Issuer: issuer, TokenURL: tokenURL, Auth: oauth.TLSClientAuth, Clients: w.Clients(), Clock: w.Clock})
					_, err := i.Issue(t.Context(), w.PKI.Credential(clientID), resource)
					authoritytest.WantError(t, err, c.want, "expired certificate")
				}
			})
		})
	}
}
