//go:build !race

package main

// raced means that the race detector is in this program.
const raced = false
