// Package credential holds what this device can prove: a private key with its
// certificate chain for each identity, and the one loop that keeps them alive.
//
// Device is all identities of the device. Its loop reads the clock at least
// every 30 s, derives the state of each identity and acts when one changed;
// it renews certificates, keeps in touch with the authority and applies the
// authority's assignments. Holder is one identity: an atomic pointer to the
// Credential in use, and its renewal. Authority, Assigner and Heartbeater are
// what the drivers under agent/authority bring.
//
// What a renewal may never do is take away a credential that works. Hence the
// order: new key, key stored as pending, authority asked, answer verified, one
// commit that swaps, backup copy; only after the new key has earned a token is
// the old one withdrawn. A cut between any two of them leaves a usable
// credential, and the next attempt takes up the same pending key.
//
// The room does no HTTP, asks for no token and reads no configuration. It
// stores facts only; the state follows from them (package lifecycle).
//
// Caveats: nothing happens in the background unless Run runs. Options.Event is
// called outside all locks, from several goroutines.
package credential
