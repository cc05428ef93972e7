// Package stepca is the driver for certificate authorities that speak
// step-ca's API, which are step-ca itself and the site authority: sign, renew,
// rekey, revoke, and the site authority's list of identities (firmware-notes/authorities.md).
//
// It holds no state and decides nothing about an identity: it makes the calls,
// bounds and parses the answers, and reduces every refusal to a class, once.
// That a certificate is the right one is checked by credential.VerifyChain.
// step-ca's own client library is not used (20 MB); neither is its renewal
// after expiry: an expired identity is a person's business.
package stepca
