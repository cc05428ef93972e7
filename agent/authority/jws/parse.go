package jws

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrMalformed is wrapped by every refusal of Parse and Decode.
var ErrMalformed = errors.New("malformed token")

// DefaultLimit is the size that Parse allows when the caller names none, in bytes.
const DefaultLimit = 32 << 10

// headerLimit bounds the decoded header; a chain of certificates fits.
const headerLimit = 16 << 10

// Header holds the header parameters that this program reads. Others are
// ignored, except "crit", which makes Parse refuse the token: it names
// extensions that must be understood, and none is (RFC 7515 section 4.1.11).
type Header struct {
	Algorithm   string   // "alg": one of the three of this package
	Type        string   // "typ"
	KeyID       string   // "kid"
	X5T         string   // "x5t", as written
	X5TS256     string   // "x5t#S256", as written: some clients use padded standard base64
	X5C         []string // "x5c": standard base64 of DER, leaf first
	X5CInsecure []string // "x5cInsecure": the same under step-ca's name for an expired chain
}

// Token is a parsed token whose signature has not been looked at. It is
// immutable and safe for concurrent use.
type Token struct {
	Header Header

	input     string // what was signed
	payload   []byte
	signature []byte
}

// Parse takes the compact form apart. limit is the greatest length of the whole
// in bytes; 0 means DefaultLimit. It is strict, because two parsers that read
// one token differently are a hole: exactly three parts, base64url without
// padding or line breaks and with zero trailing bits, UTF-8, header and payload
// each one JSON object without duplicate names at any depth (names that differ
// only in case count as duplicates), one of the three algorithms, no "crit".
// Errors wrap ErrMalformed and never quote the token.
func Parse(compact string, limit int) (*Token, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	if len(compact) > limit {
		return nil, malformed("%d bytes, at most %d are taken", len(compact), limit)
	}
	parts := strings.SplitN(compact, ".", 4)
	if len(parts) != 3 {
		return nil, malformed("not three parts")
	}
	var raw [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		var err error
		if raw[i], err = decodePart(parts[i]); err != nil {
			return nil, malformed("%s: %v", name, err)
		}
	}
	header, err := parseHeader(raw[0])
	if err != nil {
		return nil, err
	}
	if err := checkObject(raw[1]); err != nil {
		return nil, malformed("payload: %v", err)
	}
	return &Token{
		Header: header, input: parts[0] + "." + parts[1],
		payload: raw[1], signature: raw[2],
	}, nil
}

// Decode reads the claims into v, which may be a struct or a map. It may be
// called before Verify to find out whose key to use; believe nothing then.
func (t *Token) Decode(v any) error {
	if err := json.Unmarshal(t.payload, v); err != nil {
		return malformed("payload: %v", cleanJSONError(err))
	}
	return nil
}

func decodePart(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("empty")
	}
	if strings.ContainsAny(s, "\r\n") { // the decoder would skip them
		return nil, errors.New("line break")
	}
	out, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not unpadded base64url")
	}
	return out, nil
}

func parseHeader(raw []byte) (Header, error) {
	if len(raw) > headerLimit {
		return Header{}, malformed("header: %d bytes, at most %d are taken", len(raw), headerLimit)
	}
	if err := checkObject(raw); err != nil {
		return Header{}, malformed("header: %v", err)
	}
	// A map, not a struct: encoding/json would take "ALG" for "alg".
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return Header{}, malformed("header: %v", cleanJSONError(err))
	}
	if _, there := fields["crit"]; there {
		return Header{}, malformed("header: crit names extensions, and none is understood")
	}
	var h Header
	for _, f := range []struct {
		name string
		into any
	}{
		{"alg", &h.Algorithm},
		{"typ", &h.Type},
		{"kid", &h.KeyID},
		{"x5t", &h.X5T},
		{"x5t#S256", &h.X5TS256},
		{"x5c", &h.X5C},
		{"x5cInsecure", &h.X5CInsecure},
	} {
		value, there := fields[f.name]
		if !there {
			continue
		}
		if err := json.Unmarshal(value, f.into); err != nil || string(value) == "null" {
			return Header{}, malformed("header: %s has the wrong type", f.name)
		}
	}
	switch h.Algorithm {
	case RS256, PS256, ES256:
		return h, nil
	}
	return Header{}, malformed("header: alg is none of RS256, PS256, ES256")
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("jws: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// cleanJSONError keeps the kind of an error and drops the value it may quote.
func cleanJSONError(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s has the wrong type", quoteName(wrong.Field))
	}
	return errors.New("not the JSON that was expected")
}

// quoteName cuts a name that a stranger may have chosen.
func quoteName(s string) string {
	const longest = 64
	if len(s) > longest || !utf8.ValidString(s) {
		return "a field"
	}
	return fmt.Sprintf("%q", s)
}
