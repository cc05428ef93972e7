package oauth_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/oauth"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

func TestMetadataIsReadOnceADay(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		i := open(t, d.config())
		issue := func(want int) {
			t.Helper()
			if _, err := i.Issue(t.Context(), who, resource); err != nil {
				t.Fatal(err)
			}
			if d.looks != want {
				t.Errorf("%d looks, want %d", d.looks, want)
			}
		}
		issue(1)
		time.Sleep(24*time.Hour - time.Second)
		issue(1)
		time.Sleep(time.Second)
		issue(2)
		// What cannot be read again goes on being used, and is asked for again in a minute.
		d.metadata = ""
		time.Sleep(24 * time.Hour)
		issue(4) // both places
		issue(4)
		time.Sleep(time.Minute)
		issue(6)
		d.metadata = `{"issuer":"` + base + `","token_endpoint":"` + tokenURL + `"}`
		time.Sleep(time.Minute)
		issue(7)
		time.Sleep(time.Hour)
		issue(7)
	})
}

func TestEndpointThatMovedIsLookedUpAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		d.metadata = `{"issuer":"` + base + `","token_endpoint":"` + base + `/old"}`
		d.aud = tokenURL
		i := open(t, d.config())
		_, err := i.Issue(t.Context(), who, resource)
		authoritytest.WantError(t, err, lifecycle.ClassTransient, "answered 404")
		d.metadata = `{"issuer":"` + base + `","token_endpoint":"` + tokenURL + `"}`
		_, err = i.Issue(t.Context(), who, resource)
		authoritytest.WantError(t, err, lifecycle.ClassTransient, "answered 404") // not more than once a minute
		time.Sleep(time.Minute)
		if _, err := i.Issue(t.Context(), who, resource); err != nil || d.looks != 2 {
			t.Errorf("%d looks, %v", d.looks, err)
		}
	})
}

func TestMetadataByRFC8414(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		var asked []string
		d.w.Serve("other.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Path)
			if r.URL.Path != "/.well-known/oauth-authorization-server/t" {
				http.NotFound(rw, r)
				return
			}
			_, _ = io.WriteString(rw, `{"issuer":"https://other.test/t","token_endpoint":"`+tokenURL+`"}`)
		}))
		c := d.config()
		c.Issuer = "https://other.test/t"
		if _, err := open(t, c).Issue(t.Context(), who, resource); err != nil {
			t.Fatal(err)
		}
		if len(asked) != 2 || asked[0] != "/t/.well-known/openid-configuration" {
			t.Errorf("asked %v", asked)
		}
	})
}

func TestManyCallersReadTheMetadataOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		i := open(t, d.config())
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := i.Issue(t.Context(), who, resource); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if d.looks != 1 {
			t.Errorf("%d looks", d.looks)
		}
	})
}

// The caller that looks hangs up; the others do not pay for it.
func TestCallerThatHangsUpDoesNotTakeTheOthersWithIt(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		hold := make(chan struct{})
		first := true
		d.w.Serve("slow.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if first {
				first = false
				select {
				case <-hold:
				case <-r.Context().Done():
				}
				return
			}
			_, _ = io.WriteString(rw, `{"issuer":"https://slow.test","token_endpoint":"`+tokenURL+`"}`)
		}))
		c := d.config()
		c.Issuer = "https://slow.test"
		i := open(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := i.Issue(ctx, who, resource); err == nil {
				t.Error("a canceled call got a token")
			}
		})
		synctest.Wait()
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		all.Go(func() {
			if _, err := i.Issue(short, who, resource); lifecycle.ClassOf(err) != lifecycle.ClassTransient {
				t.Errorf("a waiting call that timed out: %v", err)
			}
		})
		all.Go(func() {
			if _, err := i.Issue(t.Context(), who, resource); err != nil {
				t.Errorf("a waiting call: %v", err)
			}
		})
		synctest.Wait()
		time.Sleep(2 * time.Second)
		cancel()
		all.Wait()
		close(hold)
	})
}

func TestMetadataThatIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct{ metadata, words string }{
		"captive portal":     {"<html>", "not clean JSON"},
		"another issuer":     {`{"issuer":"https://evil.test\u001b","token_endpoint":"` + tokenURL + `"}`, `of the issuer "https://evil.test"`},
		"no issuer":          {`{"token_endpoint":"` + tokenURL + `"}`, `of the issuer ""`},
		"no token endpoint":  {`{"issuer":"` + base + `"}`, "no https token endpoint"},
		"plain http":         {`{"issuer":"` + base + `","token_endpoint":"http://a.test/token"}`, "no https token endpoint"},
		"credentials":        {`{"issuer":"` + base + `","token_endpoint":"https://u:p@a.test/token"}`, "no https token endpoint"},
		"endpoint twice":     {`{"issuer":"` + base + `","token_endpoint":"` + tokenURL + `","token_endpoint":"https://evil.test"}`, "not clean JSON"},
		"endpoint a number":  {`{"issuer":"` + base + `","token_endpoint":5}`, "not that of a token issuer"},
		"larger than 64 KiB": {`{"issuer":"` + strings.Repeat("a", 64<<10) + `"}`, "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
				d.metadata = c.metadata
				_, err := open(t, d.config()).Issue(t.Context(), who, resource)
				authoritytest.WantError(t, err, lifecycle.ClassTransient, c.words)
				authoritytest.WantError(t, err, lifecycle.ClassTransient, "oauth: discovery")
				if len(d.requests) > 0 {
					t.Error("a token was asked for")
				}
			})
		})
	}
}

func TestMetadataThatCannotBeHad(t *testing.T) {
	for status, retry := range map[int]string{404: "", 500: "", 503: "30", 429: "30", 403: ""} {
		inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
			d.w.Serve("sick.test", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				if retry != "" {
					rw.Header().Set("Retry-After", retry)
				}
				rw.WriteHeader(status)
			}))
			c := d.config()
			c.Issuer = "https://sick.test"
			_, err := open(t, c).Issue(t.Context(), who, resource)
			authoritytest.WantError(t, err, lifecycle.ClassTransient, "oauth: discovery")
			refused{status: status, mute: status != 429, wait: map[string]time.Duration{"": 0, "30": 30 * time.Second}[retry]}.checkDiscovery(t, err)
		})
	}
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		i := open(t, oauth.Config{Issuer: base, Clients: w.Clients(), Clock: w.Clock})
		_, err := i.Issue(t.Context(), w.PKI.Credential(clientID), resource)
		authoritytest.WantError(t, err, lifecycle.ClassTransient, "no host of that name")
	})
}

// A certificate goes to the endpoint that the metadata names for it, even on
// another host, and nowhere else.
func TestCertificateGoesToItsOwnEndpointOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
		shown := 0
		d.w.Serve("mtls.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			shown += len(r.TLS.PeerCertificates)
			_, _ = io.WriteString(rw, `{"access_token":"a","token_type":"Bearer","expires_in":60}`)
		}))
		d.metadata = `{"issuer":"` + base + `","token_endpoint":"` + tokenURL + `","mtls_endpoint_aliases":{"token_endpoint":"https://mtls.test/token"}}`
		c := d.config()
		if _, err := open(t, c).Issue(t.Context(), who, resource); err != nil || len(d.requests) != 1 {
			t.Errorf("an assertion goes to the ordinary endpoint: %d, %v", len(d.requests), err)
		}
		c.Auth = oauth.TLSClientAuth
		if _, err := open(t, c).Issue(t.Context(), who, resource); err != nil || shown == 0 || len(d.requests) != 1 {
			t.Errorf("the certificate goes to its alias: %d shown, %v", shown, err)
		}
	})
}

func (r refused) checkDiscovery(t *testing.T, err error) {
	t.Helper()
	var e *lifecycle.Error
	if !asError(err, &e) || e.RetryAfter != r.wait || e.Throttled != (r.status == 429) || e.Answered == r.mute {
		t.Errorf("%d: got %+v", r.status, e)
	}
}
