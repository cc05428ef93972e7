package oauth_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/oauth"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

func verifyAt(roots *x509.CertPool) x509.VerifyOptions {
	return x509.VerifyOptions{Roots: roots, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
}

type refused struct {
	name   string
	status int
	header http.Header
	body   string // JSON if it begins with {
	config func(*oauth.Config)
	class  lifecycle.Class
	wait   time.Duration
	mute   bool   // it is not an answer that only the authority could give
	code   string // of the error
	words  string
}

const (
	transient   = lifecycle.ClassTransient
	rejected    = lifecycle.ClassRejected
	badResource = lifecycle.ClassBadResource
	denied      = lifecycle.ClassDenied
)

func is(code string) string { return `{"error":"` + code + `","error_description":"because"}` }

func entra(code, number, text string) string {
	return `{"error":"` + code + `","error_description":"AADSTS` + number + `: ` + text + ` Trace ID: x","error_codes":[` + number + `],"timestamp":"t","trace_id":"x","correlation_id":"y"}`
}

func after(value string) http.Header { return http.Header{"Retry-After": {value}} }

// The table of firmware-notes/authorities.md, row by row; then its numbers.
func refusals() []refused {
	audience := func(c *oauth.Config) { c.ResourceParam = oauth.AudienceParam }
	return []refused{
		{name: "captive portal", status: 200, body: "<html>", class: transient, mute: true, words: "not the JSON"},
		{name: "not modified", status: 304, class: transient, mute: true, words: "answered 304"},
		{name: "not found", status: 404, body: is("invalid_client"), class: transient, mute: true},
		{name: "proxy authentication", status: 407, body: "who are you", class: transient, mute: true, words: "answered 407"},
		{name: "time-out", status: 408, class: transient, mute: true},

		{name: "too many", status: 429, body: "slow\x1b down", header: http.Header{"Retry-After": {"7"}, "Content-Type": {"text/plain; charset=utf-8"}}, class: transient, wait: 7 * time.Second, words: "slow  down"},
		{name: "too many, as JSON", status: 429, body: is("invalid_client"), class: transient, code: "invalid_client"},
		{name: "too many, for long", status: 429, header: after("1000000000"), class: transient, wait: 6 * time.Hour},
		{name: "too many, until a date", status: 429, header: after("Sat, 01 Jan 2000 02:01:00 GMT"), class: transient, wait: time.Minute},
		{name: "too many, nonsense", status: 429, header: after("later"), class: transient},
		{name: "unavailable, with a time", status: 503, header: after("60"), body: "x", class: transient, wait: time.Minute, mute: true},

		{name: "unavailable", status: 503, class: transient, mute: true, words: "answered 503"},
		{name: "internal error", status: 500, body: is("server_error"), class: transient, mute: true, code: "server_error"},
		{name: "internal error that names the client", status: 500, body: is("invalid_client"), class: transient, mute: true, code: "invalid_client"},
		{name: "bad gateway", status: 502, body: "<html>nginx", class: transient, mute: true},
		{name: "temporarily unavailable", status: 400, body: is("temporarily_unavailable"), class: transient, code: "temporarily_unavailable"},
		{name: "server error", status: 400, body: is("server_error"), class: transient, code: "server_error"},
		{name: "jti known", status: 400, body: is("jti_known"), class: transient, code: "jti_known"},

		{name: "invalid client", status: 401, body: is("invalid_client"), class: rejected, code: "invalid_client", words: "invalid_client: because"},
		{name: "invalid client, 400", status: 400, body: is("invalid_client"), class: rejected, code: "invalid_client"},
		{name: "invalid client, 403", status: 403, body: is("invalid_client"), class: rejected, code: "invalid_client"},
		{name: "unauthorized client", status: 400, body: is("unauthorized_client"), class: rejected, code: "unauthorized_client"},

		{name: "invalid resource", status: 400, body: is("invalid_resource"), class: badResource, code: "invalid_resource"},
		{name: "invalid target", status: 400, body: is("invalid_target"), class: badResource, code: "invalid_target"},
		{name: "invalid scope", status: 400, body: is("invalid_scope"), class: badResource, code: "invalid_scope"},
		{name: "invalid request about the audience", status: 400, body: is("invalid_request"), config: audience, class: badResource, code: "invalid_request"},

		{name: "forbidden", status: 403, body: is("access_denied"), class: denied, code: "access_denied"},
		{name: "forbidden without words", status: 403, body: "<html>", class: denied, mute: true, words: "answered 403"},
		{name: "access denied", status: 400, body: is("access_denied"), class: denied, code: "access_denied"},
		{name: "invalid grant", status: 400, body: is("invalid_grant"), class: denied, code: "invalid_grant"},
		{name: "interaction required", status: 400, body: is("interaction_required"), class: denied, code: "interaction_required"},
		{name: "unsupported grant type", status: 400, body: is("unsupported_grant_type"), class: denied, code: "unsupported_grant_type"},
		{name: "invalid request", status: 400, body: is("invalid_request"), class: denied, code: "invalid_request"},
		{name: "unknown error", status: 400, body: is("purple"), class: denied, code: "purple"},
		{name: "unknown error, long and rude", status: 400, body: `{"error":"` + strings.Repeat("a", 100) + `\u001b[0m","error_description":7,"error_codes":"x"}`, class: denied, code: strings.Repeat("a", 64)},

		{name: "400 in other words", status: 400, body: "bad", class: transient, mute: true},
		{name: "401 in other words", status: 401, body: `{"message":"no"}`, class: transient, mute: true},
		{name: "error is a number", status: 401, body: `{"error":5}`, class: transient, mute: true},
		{name: "error twice", status: 401, body: `{"error":"invalid_client","error":"invalid_grant"}`, class: transient, mute: true},

		{name: "UP12 of Entra ID", status: 400, body: entra("invalid_request", "5002730", "Unsupported key for the signing algorithm"), class: denied, code: "invalid_request", words: "set alg under [token]"},
		{name: "UP12 of fosite", status: 401, body: `{"error":"invalid_client","error_description":"The 'client_assertion' uses signing algorithm 'PS256' but the requested OAuth 2.0 Client enforces signing algorithm 'RS256'."}`, class: denied, code: "invalid_client", words: "set alg under [token]"},

		{name: "key removed", status: 401, body: entra("invalid_client", "700027", "The certificate is not registered; key was not found."), class: rejected, code: "invalid_client", words: "not replicated yet: AADSTS700027"},
		{name: "key expired", status: 401, body: entra("invalid_client", "700027", "The key used is expired."), class: rejected, code: "invalid_client", words: "or the clock is wrong"},
		{name: "out of its time", status: 401, body: entra("invalid_client", "700024", "not within its valid time range"), class: rejected, code: "invalid_client", words: "the clock is wrong"},
		{name: "secret expired", status: 401, body: entra("invalid_client", "7000222", ""), class: rejected, code: "invalid_client", words: "secret has expired"},
		{name: "secret wrong", status: 401, body: entra("invalid_client", "7000215", ""), class: rejected, code: "invalid_client", words: "secret is wrong"},
		{name: "application deleted", status: 400, body: entra("unauthorized_client", "700016", ""), class: rejected, code: "unauthorized_client", words: "deleted or disabled"},
		{name: "tenant unknown", status: 400, body: entra("invalid_request", "90002", ""), class: denied, code: "invalid_request", words: "tenant is unknown"},
		{name: "resource unknown", status: 400, body: entra("invalid_resource", "500011", ""), class: badResource, code: "invalid_resource", words: "resource is unknown"},
		{name: "scope malformed", status: 400, body: entra("invalid_scope", "70011", ""), class: badResource, code: "invalid_scope", words: "scope malformed"},
		{name: "conditional access", status: 400, body: entra("invalid_grant", "53003", ""), class: denied, code: "invalid_grant", words: "Conditional Access"},
		{name: "role assignment", status: 400, body: entra("invalid_grant", "501051", ""), class: denied, code: "invalid_grant", words: "role assignment"},
		{name: "number in the text only", status: 400, body: `{"error":"temporarily_unavailable","error_description":"AADSTS90033: A transient error"}`, class: transient, code: "temporarily_unavailable", words: "busy"},
	}
}

func TestErrorClasses(t *testing.T) {
	for _, row := range refusals() {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, d *double, who *credential.Credential) {
				d.answer = func(rw http.ResponseWriter, _ *http.Request, _ int) bool {
					for k, v := range row.header {
						rw.Header()[k] = v
					}
					rw.WriteHeader(row.status)
					_, _ = io.WriteString(rw, row.body)
					return true
				}
				c := d.config()
				if row.config != nil {
					row.config(&c)
				}
				_, err := open(t, c).Issue(t.Context(), who, resource)
				authoritytest.WantError(t, err, row.class, row.words)
				row.check(t, err)
				if len(d.requests) != 1 {
					t.Errorf("%d tries", len(d.requests))
				}
			})
		})
	}
}

func (r refused) check(t *testing.T, err error) {
	t.Helper()
	var e *lifecycle.Error
	if !errors.As(err, &e) {
		return
	}
	if e.RetryAfter != r.wait || e.Throttled != (r.status == 429) {
		t.Errorf("retry after %v, throttled %v", e.RetryAfter, e.Throttled)
	}
	if e.Answered == r.mute {
		t.Errorf("answered %v: %v", e.Answered, err)
	}
	if r.code != "" && e.Code != r.code {
		t.Errorf("code %q, want %q", e.Code, r.code)
	}
	if len(e.Reason) > 256 || strings.Count(err.Error(), "oauth: token") != 1 {
		t.Errorf("%q", err.Error())
	}
}

func asError(err error, e **lifecycle.Error) bool { return errors.As(err, e) }
