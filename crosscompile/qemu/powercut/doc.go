// Package powercut cuts the power of a machine that runs Postern's store, at
// any of its block writes, and looks at what is left.
//
// A guest machine does what the agent does to its state directory, on a disk
// of which QEMU keeps a log (blklogwrites): every write and every flush in
// their order. After each call that the store acknowledged, the guest writes a
// Mark to a second partition of the same disk, so the log itself says what had
// been promised when. From base image and log the disk is built as it could
// stand after a cut at any entry, with what was not flushed lost, in part or
// torn; it is mounted, so that the file system's journal replays, and judged
// by the real program's `store verify` and by opening it as the agent does.
//
// It shows what the store, the kernel and the file system do together. It
// does not show what a card does that lies about flushes, see
// firmware-notes/power-loss.md for that. Callers: the tests of this package
// and its writer, the program inside the guest.
package powercut
