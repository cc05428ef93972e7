// Package store keeps what must survive: identities in identity.db with its
// backup copy and marker, tokens and the audit ring in cache.db. Every value is
// sealed; every file is verified in a child process before it is mapped.
package store
