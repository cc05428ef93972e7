package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// grown returns a file with branches, overflow pages, inline buckets and a
// free list of some length.
func grown(t testing.TB) string { return grownTo(t, 120) }

func grownTo(t testing.TB, values int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cache.db")
	d := value(Open(context.Background(), path, testKey(t), Options{}))(t)
	for i := range values {
		must(t, d.Update(func(tx *Tx) error {
			if i%3 == 0 {
				if err := Put(tx, "small", fmt.Sprint(i), thing{N: i}); err != nil {
					return err
				}
			}
			return Put(tx, "big", fmt.Sprintf("%03d", i), thing{N: i, S: strings.Repeat("x", 1+i*i%9000)})
		}))
	}
	must(t, d.Close())
	return path
}

func TestHealthyStructuresPass(t *testing.T) {
	path := grown(t)
	must(t, VerifyFile(t.Context(), path, Options{}))
	for _, size := range []int{4096, 16384, 65536} {
		other := filepath.Join(t.TempDir(), "x.db")
		b := value(bolt.Open(other, 0o600, &bolt.Options{PageSize: size}))(t)
		must(t, b.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucket([]byte("b"))
			for i := range 500 {
				err = errors.Join(err, bucket.Put(fmt.Append(nil, i), make([]byte, i)))
			}
			return err
		}))
		must(t, b.Close())
		content := value(os.ReadFile(other))(t)
		if err := checkStructure(t.Context(), bytes.NewReader(content), int64(len(content)), otherMaxSize); err != nil {
			t.Errorf("pages of %d bytes: %v", size, err)
		}
	}
}

// Whatever number in the file is wrong, the reader must come back: no panic,
// no endless walk, no memory beyond the file's size.
func TestAnyBrokenNumberIsFoundWithoutHarm(t *testing.T) {
	content := value(os.ReadFile(grownTo(t, 30)))(t)
	must(t, checkStructure(t.Context(), bytes.NewReader(content), int64(len(content)), otherMaxSize))
	found := 0
	try := func(at int, bad uint64, size int) {
		b := bytes.Clone(content)
		for i := range size {
			b[at+i] = byte(bad >> (8 * i))
		}
		err := checkStructure(t.Context(), bytes.NewReader(b), int64(len(b)), otherMaxSize)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("number at %d: %v, want ErrDamaged", at, err)
		}
		if err != nil {
			found++
		}
	}
	for at := 0; at+8 <= len(content); at += 2 {
		if at%pageSize > 400 {
			continue // keys and values
		}
		for _, bad := range []uint64{0, 0xFFFFFFFFFFFFFFFF, 0x0001000100010001, uint64(at / 4096)} {
			if at%8 == 0 {
				try(at, bad, 8)
			}
		}
		for _, bad := range []uint64{1, 0x7FFF, 0xFFFF} {
			try(at, bad, 2)
		}
	}
	if found < len(content)/pageSize {
		t.Fatalf("%d were found", found)
	}
}

// The number of pages bounds everything else, so the file's size bounds it.
func TestMorePagesThanTheFileHasAreFoundAtOnce(t *testing.T) {
	content := value(os.ReadFile(grownTo(t, 8)))(t)
	for at := 0; at < 2*pageSize; at += pageSize {
		b := content[at+pageHeader:]
		binary.NativeEndian.PutUint64(b[40:], 1<<40)
		sum := fnv.New64a()
		_, _ = sum.Write(b[:metaLen-8])
		binary.NativeEndian.PutUint64(b[metaLen-8:], sum.Sum64())
	}
	err := checkStructure(t.Context(), bytes.NewReader(content), int64(len(content)), otherMaxSize)
	wantError(t, err, ErrDamaged)
	if !strings.Contains(err.Error(), "1099511627776 pages") {
		t.Fatalf("%v does not name the number", err)
	}
}

// A free list that fills its page to the last byte, and claims one number more.
func TestFreeListLongerThanItsPageIsFound(t *testing.T) {
	for _, long := range []bool{false, true} {
		content := make([]byte, 3*pageSize)
		page := content[2*pageSize:]
		binary.NativeEndian.PutUint64(page, 2)
		binary.NativeEndian.PutUint16(page[8:], flagFreelist)
		n := (pageSize - pageHeader) / 8
		for i := range n {
			binary.NativeEndian.PutUint64(page[pageHeader+8*i:], uint64(3+i))
		}
		if long {
			n++
		}
		binary.NativeEndian.PutUint16(page[10:], uint16(n))
		s := &structure{ctx: t.Context(), from: bytes.NewReader(content), page: pageSize, high: 600, seen: map[uint64]bool{}}
		if err := s.freelist(2); long != errors.Is(err, ErrDamaged) {
			t.Errorf("%d numbers: %v", n, err)
		}
	}
}

// Two ways to the same page: the walk must not become endless, or exponential.
func TestPageThatIsUsedTwiceIsFound(t *testing.T) {
	content := value(os.ReadFile(grown(t)))(t)
	m := value(readMeta(bytes.NewReader(content), int64(len(content))))(t)
	changed := 0
	for id := uint64(2); id < m.high; id++ {
		page := content[id*pageSize : (id+1)*pageSize]
		if u16(page[8:]) != flagBranch || u16(page[10:]) < 2 {
			continue
		}
		b := bytes.Clone(content)
		first := b[id*pageSize+pageHeader:]
		copy(first[elementLen+8:elementLen+16], first[8:16]) // the second child is the first again
		err := checkStructure(t.Context(), bytes.NewReader(b), int64(len(b)), otherMaxSize)
		if err != nil && strings.Contains(err.Error(), "used twice") {
			changed++
		}
	}
	if changed == 0 {
		t.Fatal("it was never found")
	}
}

func TestVerifyRefusesEachKindOfWrongFile(t *testing.T) {
	dir := t.TempDir()
	whole := value(os.ReadFile(grown(t)))(t)
	m := value(readMeta(bytes.NewReader(whole), int64(len(whole))))(t)
	path := filepath.Join(dir, "cache.db")
	for name, c := range map[string]struct {
		content []byte
		want    error
	}{
		"empty":        {nil, ErrDamaged},
		"text":         {[]byte("hello, this is no database"), ErrForeign},
		"long text":    {bytes.Repeat([]byte("no database "), 9000), ErrForeign},
		"cut short":    {whole[:(m.high-1)*4096], ErrDamaged},
		"no meta page": {append(make([]byte, 8192), whole[8192:]...), ErrForeign},
		"meta pages zeroed but for the magic": {append(bytes.Repeat(append(bytes.Clone(whole[:20]), make([]byte, 4076)...), 2),
			whole[8192:]...), ErrDamaged},
	} {
		must(t, os.WriteFile(path, c.content, 0o600))
		if err := VerifyFile(t.Context(), path, Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	must(t, os.WriteFile(path, whole, 0o600))
	if err := VerifyFile(t.Context(), path, Options{MaxSize: 4096}); !errors.Is(err, ErrDamaged) {
		t.Errorf("larger than the limit: %v, want ErrDamaged", err)
	}
}

// What our reader lets pass, because it cannot end a process, bbolt's check
// still finds: a page that is neither free nor in use.
func TestLostPageIsFoundByTheDatabasesOwnCheck(t *testing.T) {
	path := grown(t)
	content := value(os.ReadFile(path))(t)
	m := value(readMeta(bytes.NewReader(content), int64(len(content))))(t)
	list := content[m.freelist*pageSize:]
	if u16(list[10:]) == 0 {
		t.Fatal("the free list is empty")
	}
	list[10]-- // the last one is forgotten
	must(t, checkStructure(t.Context(), bytes.NewReader(content), int64(len(content)), otherMaxSize))
	must(t, os.WriteFile(path, content, 0o600))
	wantError(t, VerifyFile(t.Context(), path, Options{}), ErrDamaged)
}

func FuzzStructure(f *testing.F) {
	content := value(os.ReadFile(grownTo(f, 8)))(f)
	must(f, checkStructure(context.Background(), bytes.NewReader(content), int64(len(content)), otherMaxSize))
	f.Add(content, uint16(100), uint64(7))
	f.Add([]byte{}, uint16(0), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, number uint64) {
		b = bytes.Clone(b)
		if int(at)+8 <= len(b) {
			for i := range 8 {
				b[int(at)+i] = byte(number >> (8 * i))
			}
		}
		if err := checkStructure(t.Context(), bytes.NewReader(b), int64(len(b)), 1<<20); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("error %v, want ErrDamaged", err)
		}
	})
}
