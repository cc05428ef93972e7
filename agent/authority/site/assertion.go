package site

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/agent/authority/jws"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// client is who asks for a token: an identity that proved to hold the key of
// one of its certificates.
type client struct {
	holder
	clientID string // as asked, lower case
	method   string // "private_key_jwt", "tls_client_auth"
	jti      string // of the assertion
	expires  time.Time
}

// assertionClaims are the claims of a client assertion (RFC 7523 section 3).
type assertionClaims struct {
	Issuer   string       `json:"iss"`
	Subject  string       `json:"sub"`
	Audience jws.Audience `json:"aud"`
	ID       string       `json:"jti"`
	Expires  jws.Time     `json:"exp,omitzero"`
	NotFrom  jws.Time     `json:"nbf,omitzero"`
	IssuedAt jws.Time     `json:"iat,omitzero"`
}

// authenticate finds out who asks. It reads one picture of the ledger; what it
// found is checked again in the transaction that issues the token.
func (a *Authority) authenticate(r *http.Request, form url.Values) (client, error) {
	c := client{clientID: strings.ToLower(form.Get("client_id"))}
	cert := peer(r)
	switch {
	case c.clientID == "":
		return c, errMissing("client_id")
	case form.Has("client_secret"):
		return c, errClient(7000215, "Invalid client secret provided. Devices have certificates, not secrets.", nil)
	case form.Has("client_assertion"):
		if form.Get("client_assertion_type") != assertionType {
			return c, errMissing("client_assertion_type")
		}
		return c, a.byAssertion(&c, form.Get("client_assertion"))
	case cert != nil:
		return c, a.byCertificate(&c, cert)
	}
	return c, errClient(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.", nil)
}

// byCertificate is tls_client_auth (RFC 8705 section 2.1). The registered name
// is the SAN URI with the object id; the ledger knows for which identity, and
// so with which URI, each certificate was issued.
func (a *Authority) byCertificate(c *client, cert *x509.Certificate) error {
	c.method = "tls_client_auth"
	var err error
	c.holder, err = a.lookUp(cert.SerialNumber.String(), cert.Raw)
	if err != nil {
		return a.clientError(*c, err)
	}
	if c.identity.ClientID != c.clientID {
		return errKey("The certificate belongs to another client.", thumbprint(cert.Raw), errors.New("certificate is another identity's"))
	}
	return nil
}

// byAssertion is private_key_jwt.
func (a *Authority) byAssertion(c *client, compact string) error {
	c.method = "private_key_jwt"
	token, err := jws.Parse(compact, maxAssertion)
	if err != nil {
		return errClient(50027, "JWT token is invalid or malformed.", err)
	}
	var claims assertionClaims
	if err := token.Decode(&claims); err != nil {
		return errClient(50027, "JWT token is invalid or malformed.", err)
	}
	serial, err := a.serialOf(token.Header)
	if err != nil {
		return err
	}
	if serial == "" {
		return errKey("The key was not found.", headerName(token.Header), errUnknown)
	}
	c.holder, err = a.lookUp(serial, nil)
	if err != nil {
		return a.clientError(*c, err)
	}
	cert, err := x509.ParseCertificate(c.certificate.DER)
	if err != nil {
		return err
	}
	if err := token.Verify(cert.PublicKey, jws.PS256, jws.RS256, jws.ES256); err != nil {
		return errKey("The provided signature value did not match the expected signature value.", thumbprint(cert.Raw), err)
	}
	c.jti, c.expires = claims.ID, claims.Expires.Time
	return a.checkAssertion(c, claims)
}

func (a *Authority) checkAssertion(c *client, claims assertionClaims) error {
	if c.identity.ClientID != c.clientID {
		return errKey("The key belongs to another client.", thumbprint(c.certificate.DER), errors.New("key is another identity's"))
	}
	if !equalFold(claims.Issuer, c.clientID) || !equalFold(claims.Subject, c.clientID) {
		return errClient(700021, "Client assertion application identifier doesn't match 'client_id' parameter.", nil)
	}
	if !claims.Audience.Contains(a.tokenURL()) && !claims.Audience.Contains(a.issuerURL()) {
		return errClient(700023, fmt.Sprintf("Client assertion audience claim does not match Realm issuer. Expected '%s' or '%s'.", a.tokenURL(), a.issuerURL()), nil)
	}
	if claims.ID == "" || len(claims.ID) > 512 {
		return errClient(50027, "JWT token is invalid or malformed: 'jti' is missing or too long.", nil)
	}
	now := a.now()
	late := claims.Expires.IsZero() || now.After(claims.Expires.Add(assertionSkew)) || claims.Expires.After(now.Add(assertionAhead+assertionSkew))
	early := now.Before(claims.NotFrom.Add(-assertionSkew)) || now.Before(claims.IssuedAt.Add(-assertionSkew))
	if late || early {
		const layout = "2006-01-02T15:04:05.0000000Z"
		return errClient(700024, fmt.Sprintf("Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s.",
			now.UTC().Format(layout), claims.NotFrom.UTC().Format(layout), claims.Expires.UTC().Format(layout)), nil)
	}
	return nil
}

// serialOf finds the certificate that an assertion's header names. It returns
// "" if there is none, or if two names in it disagree.
func (a *Authority) serialOf(h jws.Header) (serial string, err error) {
	err = a.view(func(t *tx) error {
		for _, thumb := range headerThumbprints(h) {
			s, err := load[string](t, bucketThumbprint, thumb)
			if err != nil && !errors.Is(err, errAbsent) {
				return err
			}
			if s != "" && serial != "" && s != serial {
				serial = ""
				return nil
			}
			if s != "" {
				serial = s
			}
		}
		return nil
	})
	return serial, err
}

// headerThumbprints are the ledger keys that a header may mean. x5c counts by
// its leaf: the ledger holds every certificate that chains to this authority,
// so a leaf that is not there is a stranger's, whatever its chain says. kid is
// tried as either digest, in either of the forms that clients use.
func headerThumbprints(h jws.Header) []string {
	var keys []string
	add := func(kind string, size int, sum []byte) {
		if len(sum) == size {
			keys = append(keys, thumbKey(kind, sum))
		}
	}
	add("s256", 32, anyBase64(h.X5TS256))
	add("s1", 20, anyBase64(h.X5T))
	if len(h.X5C) > 0 {
		if der, err := base64.StdEncoding.DecodeString(h.X5C[0]); err == nil {
			sum := sha256.Sum256(der)
			add("s256", 32, sum[:])
		}
	}
	if kid, err := hex.DecodeString(h.KeyID); err == nil {
		add("s1", 20, kid)
		add("s256", 32, kid)
	}
	add("s256", 32, anyBase64(h.KeyID))
	add("s1", 20, anyBase64(h.KeyID))
	return keys
}

// anyBase64 decodes any of the four ways in which clients write a thumbprint:
// either alphabet, padded or not (firmware-notes/authorities.md: msal-go pads). nil if s is none.
func anyBase64(s string) []byte {
	s = strings.TrimRight(s, "=")
	s = strings.NewReplacer("+", "-", "/", "_").Replace(s)
	if s == "" || len(s) > 64 || strings.ContainsAny(s, "\r\n") {
		return nil
	}
	out, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return out
}

func headerName(h jws.Header) string {
	for _, name := range []string{h.X5TS256, h.X5T, h.KeyID} {
		if name != "" {
			return name
		}
	}
	return ""
}

func thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// lookUp finds the holder of a certificate. der, if it is not nil, must be the
// certificate that was issued under the serial.
func (a *Authority) lookUp(serial string, der []byte) (h holder, err error) {
	err = a.view(func(t *tx) error {
		h, err = t.holderOf(serial)
		if err == nil && der != nil && !slices.Equal(h.certificate.DER, der) {
			h, err = holder{}, errUnknown
		}
		return err
	})
	return h, err
}

// clientError turns the end of a credential into the answer of the token endpoint.
func (a *Authority) clientError(c client, err error) error {
	thumb := thumbprint(c.certificate.DER)
	switch {
	case errors.Is(err, errDeleted), errors.Is(err, errUnassigned), errors.Is(err, errDisconnected):
		return a.errNoApplication(c.clientID, err)
	case errors.Is(err, errDisabled):
		return errDisabledClient(c.clientID)
	case errors.Is(err, errExpired), errors.Is(err, errNotYet):
		return errKey(fmt.Sprintf("The key used is expired., Found key 'Start=%s, End=%s'",
			c.certificate.NotBefore.Format(time.RFC3339), c.certificate.NotAfter.Format(time.RFC3339)), thumb, err)
	case isEnded(err):
		return errKey("The key was not found.", thumb, err)
	}
	return err
}
