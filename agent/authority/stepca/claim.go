package stepca

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"

	"postern/agent/authority/jws"
	"postern/store"
)

// Limits of a claim.
const (
	maxNames = 32  // names in one certificate
	maxName  = 512 // bytes of one name
)

// ErrClaim is wrapped by every refusal of ParseClaim.
var ErrClaim = errors.New("this is not a claim")

// Claim is what a one-time token says to the device that carries it. The
// device cannot verify it: it is believed because a person brought it, and it
// is worth nothing to an authority that did not make it.
type Claim struct {
	URL        string    // base URL of the authority: "https://ca.example:8443"
	RootSHA256 string    // lower-case hex of the root's SHA-256; empty if it does not say
	Subject    string    // common name of the certificate to be: the client id
	SANs       []string  // its other names, as written; never empty
	Expires    time.Time // UTC
}

// ParseClaim reads a one-time token of step-ca's kind: a JWT whose aud is
// "URL/1.0/sign" (with "#x5c/NAME" behind it for tokens of a factory
// certificate), sub the common name, sans the names (sub if there are none),
// sha the root's fingerprint. White space around it is ignored: it came from a
// file. Errors wrap ErrClaim and never quote it.
func ParseClaim(secret store.Secret) (Claim, error) {
	token, err := jws.Parse(strings.TrimSpace(secret.Reveal()), 0)
	if err != nil {
		return Claim{}, fmt.Errorf("%w: %w", ErrClaim, err)
	}
	var said struct {
		Audience jws.Audience `json:"aud"`
		Subject  string       `json:"sub"`
		SANs     []string     `json:"sans"`
		Root     string       `json:"sha"`
		Expires  jws.Time     `json:"exp"`
	}
	if err := token.Decode(&said); err != nil {
		return Claim{}, fmt.Errorf("%w: %w", ErrClaim, err)
	}
	claim := Claim{Subject: said.Subject, SANs: said.SANs, Expires: said.Expires.Time}
	if len(claim.SANs) == 0 {
		claim.SANs = []string{claim.Subject}
	}
	if err := checkNames(claim); err != nil {
		return Claim{}, err
	}
	if claim.URL, err = signURL(said.Audience); err != nil {
		return Claim{}, err
	}
	if said.Root != "" {
		if claim.RootSHA256, err = fingerprint(said.Root); err != nil {
			return Claim{}, fmt.Errorf("%w: %w", ErrClaim, err)
		}
	}
	return claim, nil
}

func checkNames(c Claim) error {
	if len(c.SANs) > maxNames {
		return fmt.Errorf("%w: it names %d names, at most %d are taken", ErrClaim, len(c.SANs), maxNames)
	}
	for _, name := range append([]string{c.Subject}, c.SANs...) {
		if name == "" || len(name) > maxName || strings.ContainsFunc(name, unprintable) {
			return fmt.Errorf("%w: a name in it is empty, too long or not printable", ErrClaim)
		}
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// signURL finds the authority in the audience.
func signURL(audience jws.Audience) (string, error) {
	for _, one := range audience {
		u, err := url.Parse(one)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
			continue
		}
		base, ok := strings.CutSuffix(u.Path, "/sign")
		if !ok {
			continue
		}
		return "https://" + strings.ToLower(u.Host) + strings.TrimSuffix(base, "/1.0"), nil
	}
	return "", fmt.Errorf("%w: its audience is no https address that ends in /1.0/sign", ErrClaim)
}

// fingerprint brings a SHA-256 in hex to the one form that is compared. Colons
// and case do not matter, as openssl and step print it differently.
func fingerprint(s string) (string, error) {
	out := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), ":", ""))
	if len(out) != 64 || strings.Trim(out, "0123456789abcdef") != "" {
		return "", errors.New("the fingerprint is not a SHA-256 in hex")
	}
	return out, nil
}
