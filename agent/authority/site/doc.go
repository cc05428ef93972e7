// Package site is the embedded authority: one process that issues the
// certificates and the tokens of a small site, a laptop or a test. It speaks
// exact subsets of what the agent's ordinary drivers speak to others: step-ca's
// sign, renew, rekey and revoke; the client-credentials token endpoint of Entra
// ID; and one call of its own, the list of a machine's identities.
//
// Everything it knows stands in one sealed database, authority.db, and every
// decision is one commit: the change, the one-time token that paid for it and
// the audit record are written together or not at all, and no answer leaves
// before its commit.
//
// One-time tokens are kept as a list of those that may still be used, not of
// those that were: a clock that jumps ahead and back cannot make a spent one
// good again.
//
// It imports no room of the agent: it is the other side. It does not do ACME,
// SCEP, SSH, CRLs or OCSP; a certificate is withdrawn by refusing it here.
package site
