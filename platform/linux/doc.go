// Package linux is the platform.Host of Linux: who may use a file, who is
// asking, what time it is, on what hardware we run, and how the init system is
// told.
//
// Every decision about a file is made on a descriptor and acted on with that
// same descriptor, never on a path again (firmware-notes/storage.md). Accounts and
// groups come from /etc/passwd and /etc/group alone: there is no cgo and no
// name service that could block or lie. What a kernel lacks (openat2,
// O_TMPFILE, netlink, Landlock) is noticed when it is used and replaced by the
// older way; the same tests run both.
//
// It does not decide policy: which peer may do what is settled in the rooms
// above. Caveats: on kernels before 5.7 an unprivileged process cannot bind a
// socket to the loopback device, see Listen.
package linux
