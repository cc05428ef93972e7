// Package token hands out access tokens: Broker answers from memory while a
// token lives, fetches one with the identity's credential when there is none,
// keeps those in use warm so that a cut link finds them young, and remembers
// them over a restart. It is the only place where it is decided who may have
// which token (Grants).
//
// It never parses a token, never decides an identity's state (credential does)
// and never looks at an authority's status codes: an Issuer's error has a class.
//
// Whatever goes wrong, a token that still lives is served: the cache is written
// only after success, and no error of the authority, the disk or the clock
// takes an entry out of it.
//
// Callers: agent/endpoint and agent/control ask for tokens, main builds the
// broker and runs its loop.
package token
