// Package emulated holds tests that run Postern's binaries and its security
// suites for other processors under qemu-user, where six things that a Linux
// kernel has are missing: the fallbacks are exercised there on purpose. See
// firmware-notes/cross-compile-and-qemu.md.
package emulated
