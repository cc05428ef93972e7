package slots

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// memory is a partition that may be cut off in the middle of a write.
type memory struct {
	content [Attempts + Size]byte
	left    int // bytes that are still written; below 0: all
}

var errCut = errors.New("power cut")

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(m.content[:]).ReadAt(p, at)
}

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if m.left < 0 {
		return copy(m.content[at:], p), nil
	}
	n := copy(m.content[at:], p[:min(len(p), m.left)])
	m.left -= n
	if n < len(p) {
		return n, errCut
	}
	return n, nil
}

func (m *memory) Sync() error {
	if m.left == 0 {
		return errCut
	}
	return nil
}

func TestRecordSurvivesACutAtAnyByte(t *testing.T) {
	before, after := Record{Good: "a"}, Record{Good: "a", Trial: "b", ID: "k3x"}
	for cut := range 2*Size + 1 {
		m := &memory{left: -1}
		if err := Write(m, before); err != nil {
			t.Fatal(err)
		}
		m.left = cut
		err := Write(m, after)
		m.left = -1
		got, readErr := Read(m)
		if readErr != nil || got != before && got != after {
			t.Fatalf("cut after %d bytes: %+v, %v", cut, got, readErr)
		}
		if err == nil && got != after {
			t.Fatalf("cut after %d bytes: acknowledged, but %+v", cut, got)
		}
	}
}

func TestRecordThatMakesNoSenseIsRefused(t *testing.T) {
	for _, r := range []Record{{}, {Good: "c"}, {Good: "a", Trial: "a", ID: "x"}, {Good: "a", Trial: "b"}, {Good: "b", ID: "x"}} {
		m := &memory{left: -1}
		if err := Write(m, r); err == nil {
			t.Errorf("%+v was written", r)
		}
		if m.content != [Attempts + Size]byte{} {
			t.Errorf("%+v left something", r)
		}
	}
	if _, err := Read(&memory{left: -1}); !errors.Is(err, ErrNone) {
		t.Errorf("an empty partition: %v", err)
	}
}

func TestAttemptsOfTheBootLoaderAreNeverWritten(t *testing.T) {
	m := &memory{left: -1}
	copy(m.content[Attempts:], "the boot loader's")
	if err := Write(m, Record{Good: "b", Trial: "a", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(m.content[Attempts:], []byte("the boot loader's")) {
		t.Error("the system wrote over the attempts")
	}
}

func FuzzRead(f *testing.F) {
	m := &memory{left: -1}
	if err := Write(m, Record{Good: "a", Trial: "b", ID: "1"}); err != nil {
		f.Fatal(err)
	}
	f.Add(m.content[:])
	f.Fuzz(func(t *testing.T, content []byte) {
		r, err := Read(fuzzed{bytes.NewReader(content)})
		if err == nil && r.check() != nil {
			t.Errorf("%+v was read", r)
		}
	})
}

type fuzzed struct{ *bytes.Reader }

func (fuzzed) WriteAt([]byte, int64) (int, error) { return 0, io.ErrShortWrite }
func (fuzzed) Sync() error                        { return nil }
