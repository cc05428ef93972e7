package oauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/jws"
	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/store"
)

// Limits of a token answer (firmware-notes/limits.md).
const (
	maxToken = 32 << 10
	maxLife  = 25 * time.Hour
)

// tokenAnswer is RFC 6749 section 5.1 and 5.2 in one: a 200 may hold an error.
// A refresh token is not looked for: there is never one to use.
type tokenAnswer struct {
	AccessToken string
	TokenType   string
	ExpiresIn   json.RawMessage

	Error       string
	Description string
	Codes       []int64 // Entra ID
}

// readAnswer reads the members by their exact names; one of the wrong type
// counts as missing, so that an odd ornament does not hide an error.
func readAnswer(body []byte) (said tokenAnswer, ok bool) {
	var members map[string]json.RawMessage
	if jws.CheckObject(body) != nil || json.Unmarshal(body, &members) != nil {
		return said, false
	}
	for name, into := range map[string]any{
		"access_token": &said.AccessToken, "token_type": &said.TokenType,
		"error": &said.Error, "error_description": &said.Description, "error_codes": &said.Codes,
	} {
		if raw, there := members[name]; there {
			_ = json.Unmarshal(raw, into) // counts as missing
		}
	}
	said.ExpiresIn = members["expires_in"]
	return said, true
}

// answer reads a token out of an answer. A refusal by the server is a
// *refusal; an answer that cannot be believed is a *lifecycle.Error.
func (i *Issuer) answer(resp *authority.Response, resource string) (token.Issued, error) {
	said, readable := readAnswer(resp.Body)
	if resp.Status != http.StatusOK || readable && said.Error != "" {
		return token.Issued{}, &refusal{status: resp.Status, said: said, readable: readable && said.Error != ""}
	}
	if !readable {
		return unbelievable("the answer is not the JSON of a token")
	}
	if !strings.EqualFold(said.TokenType, "Bearer") {
		return unbelievable("the token is of type %q, not Bearer", authority.Clean(said.TokenType, 32))
	}
	life, err := lifeOf(said.ExpiresIn)
	if err != nil {
		return unbelievable("%w", err)
	}
	if n := len(said.AccessToken); n > maxToken || !isWord(said.AccessToken) {
		return unbelievable("the access token has %d bytes or is not printable; 1 to %d printable ones are taken", n, maxToken)
	}
	if err := i.checkClaims(said.AccessToken, resource); err != nil {
		// The server is sure of its answer: it is configuration that is wrong.
		return token.Issued{}, &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true, Op: opToken, Err: err}
	}
	return token.Issued{Value: store.NewSecret(said.AccessToken), ExpiresIn: life}, nil
}

func unbelievable(format string, args ...any) (token.Issued, error) {
	return token.Issued{}, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: opToken, Err: fmt.Errorf(format, args...)}
}

// lifeOf reads expires_in: whole seconds, as a number or as a string of digits.
func lifeOf(raw json.RawMessage) (time.Duration, error) {
	digits := strings.TrimSuffix(strings.TrimPrefix(string(raw), `"`), `"`)
	if strings.Trim(digits, "0123456789") != "" || len(digits) > 6 {
		digits = ""
	}
	n, err := strconv.Atoi(digits)
	life := time.Duration(n) * time.Second
	if err != nil || life <= 0 || life > maxLife {
		return 0, fmt.Errorf("expires_in is not a whole number of seconds up to %d", int(maxLife/time.Second))
	}
	return life, nil
}

// checkClaims looks into a token that is a JWT: one for somebody else, or one
// that its holder cannot use, must not be handed out. Others are opaque.
func (i *Issuer) checkClaims(value, resource string) error {
	payload, ok := payloadOf(value)
	if !ok {
		return nil
	}
	var claims struct {
		Audience jws.Audience    `json:"aud"`
		Confirm  json.RawMessage `json:"cnf"`
	}
	if jws.CheckObject(payload) != nil || json.Unmarshal(payload, &claims) != nil {
		return errors.New("the claims of the token cannot be read")
	}
	if len(claims.Confirm) > 0 && string(claims.Confirm) != "null" {
		return errors.New("the token is bound to the device's key (cnf) and useless to its caller; register the client with tls_client_certificate_bound_access_tokens = false")
	}
	named := false
	for _, audience := range claims.Audience {
		named = named || audience != ""
		if trimSlash(audience) == trimSlash(resource) {
			return nil
		}
	}
	switch {
	case !named:
		return errors.New("the token is for no resource: the server does not understand resource_param = " + strconv.Quote(i.config.ResourceParam))
	case i.config.ResourceParam == EntraScope:
		return nil // v2 tokens carry the resource's GUID
	}
	return fmt.Errorf("the token is for %q, not for the resource that was asked for", authority.Clean(strings.Join(claims.Audience, " "), authority.MaxText))
}

func trimSlash(s string) string { return strings.TrimSuffix(s, "/") }

// payloadOf returns the claims of a JWS whoever signed it and by whatever
// algorithm: its header and payload are JSON objects.
func payloadOf(value string) ([]byte, bool) {
	parts := strings.Split(value, ".")
	if len(parts) != 3 {
		return nil, false
	}
	var payload []byte
	for _, part := range parts[:2] {
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
		if err != nil || !json.Valid(raw) || !strings.HasPrefix(strings.TrimSpace(string(raw)), "{") {
			return nil, false
		}
		payload = raw
	}
	return payload, true
}
