package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt's file format, version 2, as far as it decides whether a file may be
// mapped: bbolt believes every number that it finds, and a wrong one is a fault
// that ends the process. Numbers are in the byte order of the machine.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	pageHeader  = 16 // id 8, flags 2, count 2, overflow 4
	elementLen  = 16
	bucketLen   = 16 // root page 8, sequence 8
	metaLen     = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf element

	largestPage = 64 << 10
	deepest     = 64 // levels of pages and buckets; a healthy file has about five
)

// structure walks a file's pages by reading, each one once at most.
type structure struct {
	ctx   context.Context
	from  io.ReaderAt
	page  int64  // bytes
	high  uint64 // the first page number that is not in use
	seen  map[uint64]bool
	depth int
}

type meta struct {
	page, root, freelist, high, txid uint64
}

// checkStructure reports the first number in the file that cannot be right.
// Its cost is one read of the pages in use. Errors wrap ErrDamaged or ErrForeign.
func checkStructure(ctx context.Context, f io.ReaderAt, size, limit int64) error {
	if size > limit+largestPage {
		return fmt.Errorf("%d bytes, the limit is %d: %w", size, limit, ErrDamaged)
	}
	m, err := readMeta(f, size)
	if err != nil {
		return err
	}
	if m.high < 4 || m.high > uint64(size)/m.page { //nolint:gosec // the size of a file is not negative
		return fmt.Errorf("%d pages of %d in a file of %d bytes: %w", m.high, m.page, size, ErrDamaged)
	}
	s := &structure{ctx: ctx, from: f, page: int64(m.page), high: m.high, seen: map[uint64]bool{0: true, 1: true}} //nolint:gosec // parseMeta bounds it
	if err := s.freelist(m.freelist); err != nil {
		return err
	}
	return s.tree(m.root, nil, nil)
}

// readMeta finds the meta page that bbolt would use: of the valid ones that
// with the higher transaction.
func readMeta(f io.ReaderAt, size int64) (meta, error) {
	var best meta
	found, boltLike := false, false
	for _, at := range []int64{0, 4096, 8192, 16384, 32768, 65536} {
		page := make([]byte, pageHeader+metaLen)
		if at+int64(len(page)) > size {
			break
		}
		if _, err := f.ReadAt(page, at); err != nil {
			return meta{}, err
		}
		boltLike = boltLike || looksLikeMeta(page)
		m, ok := parseMeta(page)
		if !ok || at != 0 && at != int64(m.page) { //nolint:gosec // parseMeta bounds it
			continue
		}
		if !found || m.txid > best.txid {
			best, found = m, true
		}
	}
	switch {
	case found:
		return best, nil
	case boltLike:
		return meta{}, fmt.Errorf("both meta pages: %w", ErrDamaged)
	}
	return meta{}, ErrForeign
}

// looksLikeMeta reports whether the page is meant to be bbolt's, valid or not.
func looksLikeMeta(page []byte) bool {
	return len(page) >= pageHeader+metaLen && u32(page[pageHeader:]) == boltMagic
}

func parseMeta(page []byte) (meta, bool) {
	b := page[pageHeader : pageHeader+metaLen]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaLen-8])
	size := u32(b[8:])
	ok := u32(b) == boltMagic && u32(b[4:]) == boltVersion &&
		u64(b[56:]) == sum.Sum64() &&
		size >= 4096 && size <= largestPage && size&(size-1) == 0
	return meta{
		page: uint64(size), root: u64(b[16:]), freelist: u64(b[32:]),
		high: u64(b[40:]), txid: u64(b[48:]),
	}, ok
}

// read returns a page with its overflow pages, which must not have been seen.
func (s *structure) read(id uint64, want ...uint16) ([]byte, uint16, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, 0, err
	}
	if id < 2 || id >= s.high {
		return nil, 0, fmt.Errorf("page %d of %d: %w", id, s.high, ErrDamaged)
	}
	head := make([]byte, pageHeader)
	if _, err := s.from.ReadAt(head, int64(id)*s.page); err != nil { //nolint:gosec // id is below high, inside the file
		return nil, 0, readError(id, err)
	}
	flags, overflow := u16(head[8:]), uint64(u32(head[12:]))
	if u64(head) != id || !oneOf(flags, want) || overflow >= s.high-id {
		return nil, 0, fmt.Errorf("page %d: header: %w", id, ErrDamaged)
	}
	for i := id; i <= id+overflow; i++ {
		if s.seen[i] {
			return nil, 0, fmt.Errorf("page %d is used twice: %w", i, ErrDamaged)
		}
		s.seen[i] = true
	}
	page := make([]byte, int64(overflow+1)*s.page)                   //nolint:gosec // below high, inside the file
	if _, err := s.from.ReadAt(page, int64(id)*s.page); err != nil { //nolint:gosec // id is below high, inside the file
		return nil, 0, readError(id, err)
	}
	return page, flags, nil
}

// readError tells a file that is too short from a disk that cannot be read.
func readError(id uint64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("page %d is beyond the end: %w", id, ErrDamaged)
	}
	return err
}

func oneOf(flags uint16, want []uint16) bool {
	for _, w := range want {
		if flags == w {
			return true
		}
	}
	return false
}

func (s *structure) freelist(id uint64) error {
	page, _, err := s.read(id, flagFreelist)
	if err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	count, at := uint64(u16(page[10:])), uint64(pageHeader)
	if count == 0xFFFF {
		count, at = u64(page[at:]), at+8
	}
	if count > (uint64(len(page))-at)/8 {
		return fmt.Errorf("free list of %d pages: %w", count, ErrDamaged)
	}
	for i := range count {
		free := u64(page[at+8*i:])
		if free < 2 || free >= s.high || s.seen[free] {
			return fmt.Errorf("free page %d: %w", free, ErrDamaged)
		}
		s.seen[free] = true
	}
	return nil
}

// tree walks a page and what hangs below it. Keys lie in [low, high); nil is
// no limit.
func (s *structure) tree(id uint64, low, high []byte) error {
	if s.depth++; s.depth > deepest {
		return fmt.Errorf("page %d: too deep: %w", id, ErrDamaged)
	}
	defer func() { s.depth-- }()
	page, flags, err := s.read(id, flagBranch, flagLeaf)
	if err != nil {
		return err
	}
	if flags == flagLeaf {
		return s.leaf(page, id, low, high)
	}
	return s.branch(page, id, low, high)
}

func (s *structure) branch(page []byte, id uint64, low, high []byte) error {
	count := int(u16(page[10:]))
	if count == 0 {
		return fmt.Errorf("page %d: empty branch: %w", id, ErrDamaged)
	}
	keys, below := make([][]byte, count), make([]uint64, count)
	for i := range count {
		at := pageHeader + i*elementLen
		if at+elementLen > len(page) {
			return fmt.Errorf("page %d: %d elements: %w", id, count, ErrDamaged)
		}
		e := page[at:]
		key, ok := part(page, at, u32(e), u32(e[4:]), 0)
		if !ok {
			return fmt.Errorf("page %d: element %d: %w", id, i, ErrDamaged)
		}
		keys[i], below[i] = key, u64(e[8:])
	}
	if err := ordered(keys, id, low, high); err != nil {
		return err
	}
	for i := range count {
		end := high
		if i+1 < count {
			end = keys[i+1]
		}
		if err := s.tree(below[i], keys[i], end); err != nil {
			return err
		}
	}
	return nil
}

func (s *structure) leaf(page []byte, id uint64, low, high []byte) error {
	count := int(u16(page[10:]))
	keys := make([][]byte, count)
	for i := range count {
		at := pageHeader + i*elementLen
		if at+elementLen > len(page) {
			return fmt.Errorf("page %d: %d elements: %w", id, count, ErrDamaged)
		}
		e := page[at:]
		flags, pos, klen, vlen := u32(e), u32(e[4:]), u32(e[8:]), u32(e[12:])
		key, ok := part(page, at, pos, klen, vlen)
		if !ok || klen == 0 || flags&^flagBucket != 0 {
			return fmt.Errorf("page %d: element %d: %w", id, i, ErrDamaged)
		}
		keys[i] = key
		if flags&flagBucket == 0 {
			continue
		}
		value, _ := part(page, at, pos+klen, vlen, 0)
		if err := s.bucket(value, id); err != nil {
			return err
		}
	}
	return ordered(keys, id, low, high)
}

// bucket follows a bucket's value: a root page, or a page inside the value.
func (s *structure) bucket(value []byte, id uint64) error {
	if len(value) < bucketLen {
		return fmt.Errorf("page %d: bucket: %w", id, ErrDamaged)
	}
	if below := u64(value); below != 0 {
		return s.tree(below, nil, nil)
	}
	inline := value[bucketLen:]
	if len(inline) < pageHeader || u16(inline[8:]) != flagLeaf {
		return fmt.Errorf("page %d: bucket in place: %w", id, ErrDamaged)
	}
	if s.depth++; s.depth > deepest {
		return fmt.Errorf("page %d: too deep: %w", id, ErrDamaged)
	}
	defer func() { s.depth-- }()
	return s.leaf(inline, id, nil, nil)
}

// part returns the key bytes of the element at at, if it and extra bytes after
// it lie inside the page. pos counts from the element.
func part(page []byte, at int, pos, n, extra uint32) ([]byte, bool) {
	from := uint64(at) + uint64(pos) //nolint:gosec // at is an index
	if from+uint64(n)+uint64(extra) > uint64(len(page)) {
		return nil, false
	}
	return page[from : from+uint64(n)], true
}

func ordered(keys [][]byte, id uint64, low, high []byte) error {
	for i, key := range keys {
		if low != nil && string(key) < string(low) || high != nil && string(key) >= string(high) ||
			i > 0 && string(keys[i-1]) >= string(key) {
			return fmt.Errorf("page %d: keys out of order: %w", id, ErrDamaged)
		}
	}
	return nil
}

func u16(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }
func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
