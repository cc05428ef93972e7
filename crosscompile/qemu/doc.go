// Package qemu boots test guests: it fetches kernels from Debian, packs an
// initramfs, starts QEMU without KVM, and reads what the guest says.
//
// Nothing here needs root, a network of the guest, or a shell in it. A guest
// that says nothing has failed: no result is read from its console or from
// QEMU's own status. Linux hosts only.
package qemu
