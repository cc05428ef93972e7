//go:build !linux

package store

// linuxRoles: the tests that need strace or a mount are Linux's.
func linuxRoles() map[string]func([]string) error { return nil }
