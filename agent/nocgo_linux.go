//go:build !cgo

package main

// withC means that this program has C's threads. A release has not.
const withC = false
