package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"postern/agent/authority"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
)

// How a device proves itself: Config.Auth.
const (
	PrivateKeyJWT = "private_key_jwt" // RFC 7523: an assertion signed by the key
	TLSClientAuth = "tls_client_auth" // RFC 8705: the certificate itself
)

// How the resource is named: Config.ResourceParam. "scope:NAME" asks for the
// fixed scope NAME and names no resource.
const (
	EntraScope    = "entra_scope" // scope=RESOURCE/.default
	ResourceParam = "resource"    // RFC 8707
	AudienceParam = "audience"    // fosite, Hydra
	fixedScope    = "scope:"
)

// Which audience an assertion names: Config.AssertionAud.
const (
	AudTokenEndpoint = "token_endpoint" // accepted by every server that was tried
	AudIssuer        = "issuer"         // refused by fosite
)

// Entra is the preset for Entra ID: Config.Preset.
const Entra = "entra"

// Config says which server to ask, and how. Empty settings take the first value
// that is named.
type Config struct {
	Issuer   string // URL; its metadata names the token endpoint
	TokenURL string // the token endpoint itself; then Issuer is only the "issuer" audience

	Preset string // none, or Entra: fills Issuer and TokenURL from Tenant and Cloud
	Tenant string // id or domain
	Cloud  string // "public", "usgov", "usdod", "china"

	Auth          string // PrivateKeyJWT, TLSClientAuth
	Alg           string // "auto" (by the key: RSA PS256, P-256 ES256), jws.PS256, jws.RS256, jws.ES256
	AssertionAud  string // AudTokenEndpoint, AudIssuer
	ResourceParam string // EntraScope, ResourceParam, AudienceParam, "scope:NAME"
	SendX5C       bool   // put the certificate chain into the assertion

	Clients *authority.Clients
	Clock   *lifecycle.Clock
}

// Issuer is the driver. It implements token.Issuer and is safe for concurrent use.
type Issuer struct {
	config    Config
	discovery discovery
}

var _ token.Issuer = (*Issuer)(nil)

// New checks the settings and returns the driver. It contacts nobody.
func New(c Config) (*Issuer, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("oauth: %w", err)
	}
	return &Issuer{config: c}, nil
}

// complete fills in what is empty and refuses what cannot be.
func (c *Config) complete() error {
	if err := c.applyPreset(); err != nil {
		return err
	}
	for _, setting := range []struct {
		name  string
		value *string
		among []string
	}{
		{"auth", &c.Auth, []string{PrivateKeyJWT, TLSClientAuth}},
		{"alg", &c.Alg, []string{"auto", "PS256", "RS256", "ES256"}},
		{"assertion_aud", &c.AssertionAud, []string{AudTokenEndpoint, AudIssuer}},
		{"resource_param", &c.ResourceParam, []string{EntraScope, ResourceParam, AudienceParam, fixedScope}},
	} {
		if *setting.value == "" {
			*setting.value = setting.among[0]
		}
		if !oneOf(*setting.value, setting.among) {
			return fmt.Errorf("%s is %q, want one of %s", setting.name, *setting.value, strings.Join(setting.among, ", "))
		}
	}
	for name, value := range map[string]string{"issuer": c.Issuer, "token_url": c.TokenURL} {
		if value != "" && !isHTTPS(value) {
			return fmt.Errorf("%s is not an https address", name)
		}
	}
	switch {
	case c.Issuer == "" && c.TokenURL == "":
		return errors.New("neither issuer nor token_url is set")
	case c.Issuer == "" && c.AssertionAud == AudIssuer:
		return errors.New("assertion_aud is issuer, and issuer is not set")
	}
	return nil
}

func oneOf(value string, among []string) bool {
	for _, one := range among {
		if value == one || one == fixedScope && strings.HasPrefix(value, one) && isWord(strings.TrimPrefix(value, one)) {
			return true
		}
	}
	return false
}

// isWord says that s is printable ASCII without a space: one scope, one
// resource, one token.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func isHTTPS(s string) bool {
	u, err := url.Parse(s)
	return err == nil && authority.Address(u) != "" && u.User == nil && u.Fragment == "" && u.RawQuery == ""
}

// maxResource is the longest resource that is asked for, in bytes.
const maxResource = 2048

// Issue asks for a token for resource as the identity of with. One call is one
// or two requests: the second only with a corrected clock.
func (i *Issuer) Issue(ctx context.Context, with *credential.Credential, resource string) (token.Issued, error) {
	if len(resource) > maxResource || !isWord(resource) {
		return token.Issued{}, &lifecycle.Error{
			Class: lifecycle.ClassBadResource, Op: opToken,
			Err: fmt.Errorf("a resource is 1 to %d printable characters without a space", maxResource),
		}
	}
	end, err := i.endpoints(ctx)
	if err != nil {
		return token.Issued{}, err
	}
	issued, err := i.ask(ctx, end, with, resource)
	var late *skewError
	if !errors.As(err, &late) {
		return issued, err
	}
	// The Date of that answer has set the clock's offset: once more, with a
	// fresh assertion on the authority's time.
	issued, err = i.ask(ctx, end, with, resource)
	if errors.As(err, &late) {
		return token.Issued{}, late.refused
	}
	return issued, err
}

// ask makes one request.
func (i *Issuer) ask(ctx context.Context, end endpoints, with *credential.Credential, resource string) (token.Issued, error) {
	req, dated, err := i.request(ctx, end, with, resource)
	if err != nil {
		return token.Issued{}, err
	}
	client := i.config.Clients.Plain()
	if i.config.Auth == TLSClientAuth {
		client = i.config.Clients.With(with.TLS(), authority.Address(req.URL))
	}
	resp, err := authority.Do(client, req, opToken, authority.BodyLimit)
	if err != nil {
		if fault := new(authority.Fault); errors.As(err, &fault) && fault.Stage == authority.StageRedirect {
			i.discovery.doubt()
		}
		return token.Issued{}, i.afterAlert(ctx, end, err)
	}
	issued, err := i.answer(resp, resource)
	if err == nil {
		return issued, nil
	}
	var refused *refusal
	if errors.As(err, &refused) {
		return token.Issued{}, i.classify(resp, refused, with, dated)
	}
	return token.Issued{}, err
}

// now is the authority's time as far as it is known.
func (i *Issuer) now() time.Time {
	return i.config.Clock.Now().Wall.Add(i.config.Clock.Offset())
}
