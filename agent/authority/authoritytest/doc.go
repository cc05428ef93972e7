// Package authoritytest is what every driver of an authority must pass: one
// conformance suite for credential.Authority, one for token.Issuer, and the
// tables of bad servers and bad answers that no driver may fall for. It is test
// code in a package of its own, because several rooms run it; the product does
// not import it.
//
// Net is a network in memory, so that a suite runs inside testing/synctest with
// real TLS and real HTTP on both sides; PKI makes certificates for it.
package authoritytest
