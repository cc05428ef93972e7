package stepca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"

	"postern/agent/authority"
	"postern/agent/lifecycle"
)

// Root fetches the root certificate whose SHA-256 is known (hex; colons and
// case do not matter) from the authority at base, and returns it as PEM. The
// fingerprint is all that makes it believable: whoever is in the way can only
// pass the true root on. c's roots are not used. Everything afterwards goes
// over TLS that is verified with this root alone.
//
// Errors: class Denied if the server has no such root or answers with another,
// else as authority.Do.
func Root(ctx context.Context, c authority.Config, base, sha256hex string) (string, error) {
	const op = "stepca: root"
	want, err := fingerprint(sha256hex)
	if err != nil {
		return "", &lifecycle.Error{Class: lifecycle.ClassDenied, Op: op, Err: err}
	}
	resp, err := authority.Bootstrap(ctx, c, strings.TrimSuffix(base, "/")+"/root/"+want, op, authority.BodyLimit)
	if err != nil {
		return "", err
	}
	switch {
	case resp.Status == http.StatusNotFound:
		return "", &lifecycle.Error{Class: lifecycle.ClassDenied, Op: op, Reason: message(resp), Err: errors.New("the authority at " + base + " has no root with this fingerprint")}
	case resp.Status != http.StatusOK:
		return "", transient(op, resp)
	}
	var answer struct {
		CA string `json:"ca"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil {
		return "", malformed(op, "not the JSON of a root", err)
	}
	block, rest := pem.Decode([]byte(answer.CA))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return "", malformed(op, "not one certificate in PEM", nil)
	}
	// Without this comparison the whole trust of the device would be the
	// network's to choose (TestRootMustMatchItsFingerprint).
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != want {
		return "", &lifecycle.Error{Class: lifecycle.ClassDenied, Op: op, Err: errors.New("the server answers with a root of another fingerprint; somebody may be in the way")}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA {
		return "", malformed(op, "the fingerprint is not that of a certificate authority", err)
	}
	return string(pem.EncodeToMemory(block)), nil
}
