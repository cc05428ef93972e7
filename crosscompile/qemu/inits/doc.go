// Package inits boots the product under every init system that it has files
// for: a Debian root without configured packages, the files that `postern
// install` writes, and a story in which nothing is simulated but the machine.
//
// The packages are unpacked with their owners, so the tests need root.
package inits
