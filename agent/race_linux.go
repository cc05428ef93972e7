//go:build race

package main

// raced means that the race detector is in this program. It needs more memory
// than a verifier may have.
const raced = true
