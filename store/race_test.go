//go:build race

package store

// share divides the numbers of cases: a child of this binary takes a second to
// start when the race detector is in it.
const share = 12
