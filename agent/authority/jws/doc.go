// Package jws signs and verifies JSON Web Signatures in the compact form
// (RFC 7515) over any crypto.Signer, a TPM key included: client assertions,
// one-time tokens, access tokens.
//
// It knows three algorithms (RS256, PS256, ES256) and nothing else: no
// encryption, no HMAC, no "none", no key look-up by URL, no detached content.
// Claims are the caller's business: nothing here compares times or names.
// A parsed token is a stranger's text until Verify has returned nil.
package jws

// The algorithms of RFC 7518 section 3.1 that this package knows.
const (
	RS256 = "RS256" // RSASSA-PKCS1-v1_5 with SHA-256
	PS256 = "PS256" // RSASSA-PSS with SHA-256, salt as long as the hash
	ES256 = "ES256" // ECDSA on P-256 with SHA-256
)

// RSA moduli that are accepted, in bits.
const (
	minRSABits = 2048 // RFC 7518 section 3.3
	maxRSABits = 4096 // a longer one only costs time
)
