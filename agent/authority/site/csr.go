package site

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// certificateRequest is a CSR as step-ca takes it in JSON: a string with PEM;
// null and "" count as absent.
type certificateRequest struct{ *x509.CertificateRequest }

// errLarge is a CSR beyond its limit.
var errLarge = errors.New("certificate request is too large")

// UnmarshalJSON reads the string and parses what is in it.
func (c *certificateRequest) UnmarshalJSON(raw []byte) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	if s == "" || s == "null" {
		return nil
	}
	if len(s) > maxCSR {
		return errLarge
	}
	block, _ := pem.Decode([]byte(s))
	if block == nil {
		return errors.New("no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	c.CertificateRequest = csr
	return nil
}

// check verifies that there is one, signed by its own key.
func (c certificateRequest) check() error {
	if c.CertificateRequest == nil {
		return badRequest("missing csr")
	}
	if err := c.CheckSignature(); err != nil {
		return badRequest("invalid csr")
	}
	return nil
}

// checkKey refuses keys that nothing here can use: RSA below 2048 bits as
// step-ca does, above 4096 because it only costs time, curves other than
// P-256 because no token can be had with them.
func checkKey(pub any) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case bits < 2048:
			return forbidden("certificate request RSA key must be at least 2048 bits (256 bytes)")
		case bits > 4096:
			return forbidden("certificate request RSA key must be at most 4096 bits (512 bytes)")
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
		return forbidden("certificate request EC key must be on the curve P-256")
	case ed25519.PublicKey:
		return nil
	}
	return badRequest("certificate request key of type '%T' is not supported", pub)
}

// checkNames compares the names that a CSR asks for with those of its one-time
// token. A kind of name that the CSR leaves out is taken from the token; one
// that it carries must be exactly the token's. The certificate is made from
// the token alone, never from the CSR.
func checkNames(csr *x509.CertificateRequest, subject string, sans []string) error {
	wanted := append([]string{subject}, sans...)
	if cn := csr.Subject.CommonName; cn != "" && !slices.Contains(wanted, cn) {
		return forbidden("certificate request does not contain the valid common name - got %s, want %s", cut(cn, 200), wanted)
	}
	want := splitNames(sans)
	for _, kind := range []struct {
		what      string
		got, want []string
	}{
		{"DNS names", csr.DNSNames, want.dns},
		{"email addresses", csr.EmailAddresses, want.mail},
		{"IP addresses", asStrings(csr.IPAddresses), want.ip},
		{"URIs", asStrings(csr.URIs), want.uri},
	} {
		if len(kind.got) > 0 && !sameSet(kind.got, kind.want) {
			return forbidden("certificate request does not contain the valid %s - got [%s], want %s",
				kind.what, cut(strings.Join(kind.got, " "), 400), kind.want)
		}
	}
	return nil
}

type splitSANs struct{ dns, mail, ip, uri []string }

func splitNames(sans []string) splitSANs {
	s := splitSANs{[]string{}, []string{}, []string{}, []string{}}
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			s.ip = append(s.ip, ip.String())
		} else if u, err := url.Parse(san); err == nil && u.Scheme != "" {
			s.uri = append(s.uri, u.String())
		} else if strings.Contains(san, "@") {
			s.mail = append(s.mail, san)
		} else {
			s.dns = append(s.dns, san)
		}
	}
	return s
}

func asStrings[T fmt.Stringer](in []T) []string {
	out := make([]string, 0, len(in))
	for _, v := range in {
		out = append(out, v.String())
	}
	return out
}

func sameSet(a, b []string) bool {
	set := func(in []string) map[string]bool {
		m := map[string]bool{}
		for _, s := range in {
			m[s] = true
		}
		return m
	}
	return maps.Equal(set(a), set(b))
}

// timeOrDuration is step-ca's TimeDuration: an RFC 3339 time, or a duration
// counted from the start of the certificate's life; "" is neither.
type timeOrDuration struct {
	at  time.Time
	dur time.Duration
}

// UnmarshalJSON reads either form.
func (t *timeOrDuration) UnmarshalJSON(raw []byte) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || s == "" {
		return err
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		t.at = at.UTC()
		return nil
	}
	dur, err := time.ParseDuration(s)
	t.dur = dur
	return err
}

// end returns when a certificate ends that starts to be used at now and may
// live for most.
func (t timeOrDuration) end(now time.Time, most time.Duration) (time.Time, error) {
	end := t.at
	switch {
	case t.at.IsZero() && t.dur == 0:
		return now.Add(most), nil
	case t.at.IsZero():
		end = now.Add(t.dur)
	}
	second := time.Second
	life := end.Truncate(second).Sub(now.Add(-backdate).Truncate(second))
	switch {
	case end.Before(now.Truncate(second)):
		return end, badRequest("notAfter cannot be in the past; na=%v", end)
	case life < leafLifeLeast:
		return end, forbidden("requested duration of %v is less than the authorized minimum certificate duration of %v", life, leafLifeLeast)
	case life > most+backdate:
		return end, forbidden("requested duration of %v is more than the authorized maximum certificate duration of %v", life, most+backdate)
	}
	return end, nil
}

// tooLarge turns an error of reading a body into its answer.
func tooLarge(err error) (stepError, bool) {
	var body *http.MaxBytesError
	if errors.As(err, &body) || errors.Is(err, errLarge) {
		return stepError{status: http.StatusRequestEntityTooLarge, reason: err}, true
	}
	return stepError{}, false
}
