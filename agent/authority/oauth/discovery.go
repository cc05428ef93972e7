package oauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/jws"
	"postern/agent/lifecycle"
)

const (
	opToken     = "oauth: token" //nolint:gosec // a name
	opDiscovery = "oauth: discovery"
)

// endpoints are the addresses of the server.
type endpoints struct {
	issuer string // as the server writes it
	token  string // where the device asks
	aud    string // what an assertion is addressed to
}

// Lives of metadata, on the clock that runs since boot.
const (
	discoveryLife  = 24 * time.Hour
	discoveryAgain = time.Minute // between two looks after a call went wrong
)

// discovery keeps the server's metadata. The zero value has none.
type discovery struct {
	mu     sync.Mutex
	known  endpoints
	at     time.Duration // when it was read; meaningful if known is set
	doubts bool          // a call has failed since: look again, if a minute has passed
	flight chan struct{} // closed when the look that is under way ends
}

// doubt says that the endpoints may have moved.
func (d *discovery) doubt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.doubts = true
}

// fresh says whether what is known will do.
func (d *discovery) fresh(now time.Duration) bool {
	age := now - d.at
	switch {
	case d.known.token == "", age < 0, age >= discoveryLife:
		return false
	case d.doubts:
		return age < discoveryAgain
	}
	return true
}

// endpoints returns the addresses; it reads the metadata when that is due, one
// caller for all. Metadata that cannot be read again goes on being used.
func (i *Issuer) endpoints(ctx context.Context) (endpoints, error) {
	if c := i.config; c.TokenURL != "" {
		return i.fixed(), nil
	}
	d := &i.discovery
	for {
		now := i.config.Clock.Now().Boot
		d.mu.Lock()
		if d.fresh(now) {
			defer d.mu.Unlock()
			return d.known, nil
		}
		wait := d.flight
		if wait == nil {
			d.flight = make(chan struct{})
			d.mu.Unlock()
			return i.lookUp(ctx, now)
		}
		d.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return endpoints{}, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: opDiscovery, Err: ctx.Err()}
		}
	}
}

// fixed are the endpoints that configuration gives.
func (i *Issuer) fixed() endpoints {
	end := endpoints{issuer: i.config.Issuer, token: i.config.TokenURL, aud: i.config.TokenURL}
	if i.config.AssertionAud == AudIssuer {
		end.aud = end.issuer
	}
	return end
}

// lookUp reads the metadata for everybody who waits.
func (i *Issuer) lookUp(ctx context.Context, now time.Duration) (endpoints, error) {
	found, err := i.metadata(ctx)
	d := &i.discovery
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.flight)
	d.flight = nil
	switch {
	case err == nil:
		d.known, d.at, d.doubts = found, now, false
	case d.known.token == "":
		return endpoints{}, err
	default:
		d.at, d.doubts = now-discoveryLife+discoveryAgain, false // the next look in a minute
	}
	return d.known, nil
}

// wellKnown are the places of a server's metadata, in the order in which they
// are tried: OpenID Connect Discovery section 4, RFC 8414 section 3.
func wellKnown(issuer string) []string {
	u, err := url.Parse(issuer)
	if err != nil {
		return nil
	}
	path := strings.TrimSuffix(u.Path, "/")
	openid, oauth := *u, *u
	openid.Path = path + "/.well-known/openid-configuration"
	oauth.Path = "/.well-known/oauth-authorization-server" + path
	return []string{openid.String(), oauth.String()}
}

func (i *Issuer) metadata(ctx context.Context) (endpoints, error) {
	var last error
	for _, place := range wellKnown(i.config.Issuer) {
		resp, err := i.get(ctx, place)
		if err != nil {
			return endpoints{}, err
		}
		if resp.Status == http.StatusOK {
			return i.readMetadata(resp.Body)
		}
		last = i.temporary(resp, opDiscovery, fmt.Errorf("%s answered %d", place, resp.Status))
		if resp.Status != http.StatusNotFound {
			break
		}
	}
	return endpoints{}, last
}

// get asks without any credential.
func (i *Issuer) get(ctx context.Context, address string) (*authority.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: opDiscovery, Err: err}
	}
	req.Header.Set("Accept", "application/json")
	return authority.Do(i.config.Clients.Plain(), req, opDiscovery, authority.BodyLimit)
}

func (i *Issuer) readMetadata(body []byte) (endpoints, error) {
	bad := func(format string, args ...any) (endpoints, error) {
		return endpoints{}, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: opDiscovery, Err: fmt.Errorf(format, args...)}
	}
	var said struct {
		Issuer  string `json:"issuer"`
		Token   string `json:"token_endpoint"`
		Aliases struct {
			Token string `json:"token_endpoint"`
		} `json:"mtls_endpoint_aliases"`
	}
	if err := jws.CheckObject(body); err != nil {
		return bad("the metadata is not clean JSON")
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return bad("the metadata is not that of a token issuer")
	}
	if !sameIssuer(i.config.Issuer, said.Issuer) {
		return bad("the metadata is of the issuer %q", authority.Clean(said.Issuer, authority.MaxText))
	}
	end := endpoints{issuer: said.Issuer, token: said.Token, aud: said.Token}
	if i.config.Auth == TLSClientAuth && said.Aliases.Token != "" {
		end.token = said.Aliases.Token // RFC 8705 section 5
	}
	if i.config.AssertionAud == AudIssuer {
		end.aud = end.issuer
	}
	if !isHTTPS(end.token) {
		return bad("the metadata names no https token endpoint")
	}
	return end, nil
}

// sameIssuer compares the configured issuer with the one in the metadata (RFC
// 8414 section 3.3). They are equal up to a trailing slash; or the configured
// one is a bare host, whose metadata may speak for a tenant on that very host.
func sameIssuer(configured, said string) bool {
	c, err1 := url.Parse(configured)
	s, err2 := url.Parse(said)
	if err1 != nil || err2 != nil || !isHTTPS(said) || authority.Address(c) != authority.Address(s) {
		return false
	}
	path := strings.TrimSuffix(c.Path, "/")
	return path == "" || path == strings.TrimSuffix(s.Path, "/")
}
