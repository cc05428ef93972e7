//go:build linux

package linux

import (
	"testing"

	"postern/platform"
)

// BenchmarkChallengeFile is what one challenge costs: the file, made complete
// with its access, and its removal.
func BenchmarkChallengeFile(b *testing.B) {
	d := benchDir(b)
	content := make([]byte, 43)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Create("0f8fad5b-d9cb-469f-a165-70867728950e.key", content); err != nil {
			b.Fatal(err)
		}
		if err := d.Remove("0f8fad5b-d9cb-469f-a165-70867728950e.key"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck is a full rescan's look at the directory and all its parents.
func BenchmarkCheck(b *testing.B) {
	d := benchDir(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Check(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchDir(b *testing.B) platform.Dir {
	h := testHost(b)
	if err := h.Secure(h.dirs.State, platform.TokenReaders); err != nil {
		b.Fatal(err)
	}
	d, err := h.OpenDir(h.dirs.State, platform.TokenReaders)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	return d
}
