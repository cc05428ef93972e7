//go:build cgo

package main

// withC means that this program has C's threads, whose stacks of 8 MB count as
// data, and perhaps the race detector: a verifier's bound would end it.
const withC = true
