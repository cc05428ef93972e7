package oauth

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/agent/authority/jws"
	"postern/agent/credential"
	"postern/agent/lifecycle"
)

// Times of an assertion. Servers tolerate a clock that is ahead by little
// (fosite less than 14 s, oidc-provider less than 30 s: measured) and one that
// is behind by much.
const (
	backdate      = time.Minute
	assertionLife = 5 * time.Minute
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// request makes the token request. dated is the time that its assertion rests
// on, zero if it has none.
func (i *Issuer) request(ctx context.Context, end endpoints, with *credential.Credential, resource string) (req *http.Request, dated time.Time, err error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {with.Identity.ClientID}}
	i.nameResource(form, resource)
	if i.config.Auth == PrivateKeyJWT {
		dated = i.now()
		assertion, err := i.assertion(with, end.aud, dated)
		if err != nil {
			return nil, dated, &lifecycle.Error{Class: lifecycle.ClassDenied, Op: "oauth: assertion", Err: err}
		}
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
	}
	req, err = http.NewRequestWithContext(ctx, http.MethodPost, end.token, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, dated, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: opToken, Err: err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	return req, dated, nil
}

// nameResource names the resource as given: Entra ID's Resource Manager is
// "https://management.azure.com/", which gives "…com//.default", as documented.
func (i *Issuer) nameResource(form url.Values, resource string) {
	switch param := i.config.ResourceParam; param {
	case EntraScope:
		form.Set("scope", resource+"/.default")
	case ResourceParam, AudienceParam:
		form.Set(param, resource)
	default:
		form.Set("scope", strings.TrimPrefix(param, fixedScope))
	}
}

// assertion is a JWT by which the key speaks for the client (RFC 7523 section
// 3). Its id is fresh for every try: servers remember those that they saw.
func (i *Issuer) assertion(with *credential.Credential, audience string, now time.Time) (string, error) {
	alg, err := i.algorithm(with)
	if err != nil {
		return "", err
	}
	header := map[string]any{"typ": "JWT", "x5t#S256": with.Thumbprint(), "kid": with.Thumbprint()}
	if i.config.SendX5C {
		var chain []string
		for _, cert := range with.Chain {
			chain = append(chain, base64.StdEncoding.EncodeToString(cert.Raw))
		}
		header["x5c"] = chain
	}
	return jws.Sign(with.Signer, alg, header, map[string]any{
		"iss": with.Identity.ClientID, "sub": with.Identity.ClientID, "aud": audience, "jti": rand.Text(),
		"iat": jws.Time{Time: now.Add(-backdate)}, "nbf": jws.Time{Time: now.Add(-backdate)}, "exp": jws.Time{Time: now.Add(assertionLife)},
	})
}

func (i *Issuer) algorithm(with *credential.Credential) (string, error) {
	pub := with.Signer.Public()
	if _, ok := pub.(*rsa.PublicKey); !ok && i.config.Preset == Entra {
		return "", errors.New("Entra ID takes RSA keys only: set key.algorithm to RSA-2048 and connect anew") //nolint:staticcheck,revive // a name
	}
	if i.config.Alg != "auto" {
		return i.config.Alg, nil
	}
	return jws.Algorithm(pub)
}
