package powercut

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The disk: a partition with the file system, and one with the marks.
const (
	FSStart   = 1 << 20
	FSSize    = 64 << 20
	MarkStart = FSStart + FSSize
	MarkSlot  = 512 // the unit that a disk writes whole
	MarkSlots = 2048
	DiskSize  = MarkStart + MarkSlot*MarkSlots
)

// What a mark acknowledges.
const (
	Opened       = "opened"       // the state directory is there, and an empty cache
	Connected    = "connected"    // credential.Device.Connect returned
	Pending      = "pending"      // the authority is asked to renew: the new key must be on disk
	Renewed      = "renewed"      // credential.Device.Renew returned
	Refreshed    = "refreshed"    // store.Cache.Commit returned
	Disconnected = "disconnected" // Disconnect and Drop returned
)

// Mark is one acknowledgement: what the store holds now, and must hold after
// every cut from here on. Keys are random, so a mark has the sum of what is
// there and not a way to compute it.
type Mark struct {
	Seq  uint64 `json:"seq"`
	What string `json:"what"`
	// Next is what is done next: a cut before the next mark may show its effect.
	Next     string `json:"next"`
	Identity string `json:"identity"` // State.Identity
	Cache    string `json:"cache"`    // State.Cache
	Serial   int64  `json:"serial"`   // of the newest certificate ever issued
	Round    uint64 `json:"round"`    // of refreshes, ever
	Bytes    int64  `json:"bytes"`    // that the store says it has written since it was opened
}

// ErrNoMark says that no mark stands there.
var ErrNoMark = errors.New("no mark")

const markWord = "postern-mark-1 "

// Encode returns the mark as it stands on the disk: one slot.
func (m Mark) Encode() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	line := fmt.Sprintf("%s%s %s\n", markWord, hex.EncodeToString(sum[:8]), text)
	if len(line) > MarkSlot {
		return nil, fmt.Errorf("a mark of %d bytes, %d fit", len(line), MarkSlot)
	}
	return append([]byte(line), make([]byte, MarkSlot-len(line))...), nil
}

// Offset is where on the disk's second partition the mark belongs.
func (m Mark) Offset() int64 { return int64(m.Seq % MarkSlots * MarkSlot) }

// DecodeMark reads one slot. ErrNoMark if none stands there.
func DecodeMark(slot []byte) (Mark, error) {
	var m Mark
	rest, ok := bytes.CutPrefix(slot, []byte(markWord))
	line, _, ended := bytes.Cut(rest, []byte{'\n'})
	sum, text, split := bytes.Cut(line, []byte{' '})
	if !ok || !ended || !split {
		return m, ErrNoMark
	}
	want := sha256.Sum256(text)
	if string(sum) != hex.EncodeToString(want[:8]) {
		return m, fmt.Errorf("its sum is wrong: %w", ErrNoMark)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return Mark{}, fmt.Errorf("%w: %w", err, ErrNoMark)
	}
	return m, nil
}

// LastMark returns the newest mark of a second partition that begins at byte
// start of r. ErrNoMark if there is none.
func LastMark(r io.ReaderAt, start int64) (Mark, error) {
	content := make([]byte, MarkSlots*MarkSlot)
	if n, err := r.ReadAt(content, start); n < len(content) {
		return Mark{}, err
	}
	last, found := Mark{}, false
	for at := 0; at < len(content); at += MarkSlot {
		m, err := DecodeMark(content[at : at+MarkSlot])
		if err == nil && (!found || m.Seq > last.Seq) {
			last, found = m, true
		}
	}
	if !found {
		return Mark{}, ErrNoMark
	}
	return last, nil
}

// Logged is a mark and the entry of the log that wrote it.
type Logged struct {
	Mark
	Entry int
}

// Marks returns the marks of a log in their order. A mark out of sequence is
// an error: the log would not say what was promised when.
func (l *Log) Marks() ([]Logged, error) {
	var all []Logged
	for i, e := range l.Entries {
		if !e.IsWrite() || e.At < MarkStart {
			continue
		}
		slot, err := l.Read(e)
		if err != nil {
			return nil, err
		}
		m, err := DecodeMark(slot[:min(len(slot), MarkSlot)])
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		if n := len(all); n > 0 && m.Seq != all[n-1].Seq+1 {
			return nil, fmt.Errorf("entry %d: mark %d behind mark %d: %w", i, m.Seq, all[n-1].Seq, ErrLog)
		}
		all = append(all, Logged{m, i})
	}
	return all, nil
}
