package crosscompile

import (
	"cmp"
	"context"
	"debug/elf"
	"debug/pe"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Lines of Weights that are no package.
const (
	Tables = "(function tables)" // what the runtime needs for stack traces and the garbage collector
	Types  = "(types)"           // type descriptors that the linker puts together
	Rest   = "(rest)"            // headers, strings, padding
)

// Weights are bytes in the file by package. Together they are the whole binary.
type Weights map[string]int64

// Weigh builds t at root with its symbol table into the folder out and adds up
// the symbols by package. size is that of the stripped binary, which lacks the table.
func Weigh(ctx context.Context, root, out string, t Target, size int64) (Weights, error) {
	path, err := Build(ctx, root, out, t, "", "-ldflags=-w")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(path) }()
	var symbols []symbol
	var tables int64
	if t.OS == "windows" {
		symbols, err = peSymbols(path)
	} else {
		symbols, tables, err = elfSymbols(path)
	}
	if err != nil {
		return nil, fmt.Errorf("weigh %s: %w", t, err)
	}
	w := Weights{}
	rest := size
	if tables > 0 {
		w[Tables] = tables
		rest -= tables
	}
	for _, s := range symbols {
		w[packageOf(s.name)] += s.size
		rest -= s.size
	}
	if rest < 0 {
		return nil, fmt.Errorf("weigh %s: the symbols have %d bytes more than the file", t, -rest)
	}
	w[Rest] += rest
	return w, nil
}

type symbol struct {
	name string
	size int64
}

// elfSymbols returns what lies in the file; zeroed memory takes no flash.
func elfSymbols(path string) ([]symbol, int64, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // only read
	all, err := f.Symbols()
	if err != nil {
		return nil, 0, err
	}
	var tables int64
	if s := f.Section(".gopclntab"); s != nil {
		tables = int64(s.FileSize)
	}
	var list []symbol
	for _, s := range all {
		if int(s.Section) >= len(f.Sections) || s.Section == elf.SHN_UNDEF || s.Size == 0 {
			continue
		}
		if in := f.Sections[s.Section]; in.Type != elf.SHT_NOBITS && in.Name != ".gopclntab" {
			list = append(list, symbol{s.Name, int64(s.Size)})
		}
	}
	return list, tables, nil
}

// peSymbols takes a symbol's size from where the next one begins: PE has no
// sizes. What stands behind a section's last symbol belongs to nobody.
func peSymbols(path string) ([]symbol, error) {
	f, err := pe.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	all := slices.DeleteFunc(slices.Clone(f.Symbols), func(s *pe.Symbol) bool {
		return s.SectionNumber <= 0 || int(s.SectionNumber) > len(f.Sections)
	})
	slices.SortStableFunc(all, func(a, b *pe.Symbol) int {
		return cmp.Or(cmp.Compare(a.SectionNumber, b.SectionNumber), cmp.Compare(a.Value, b.Value))
	})
	var list []symbol
	for i, s := range all {
		in := f.Sections[s.SectionNumber-1]
		end := min(in.Size, in.VirtualSize)
		if i+1 < len(all) && all[i+1].SectionNumber == s.SectionNumber {
			end = min(end, all[i+1].Value)
		}
		if end > s.Value {
			list = append(list, symbol{s.Name, int64(end - s.Value)})
		}
	}
	return list, nil
}

// packageOf reads the import path out of a linker symbol's name
// (cmd/internal/objabi: dots of the last element are written %2e).
func packageOf(name string) string {
	for _, marker := range []struct{ prefix, line string }{
		{"runtime.pclntab", Tables}, {"go:func.", Tables}, {"runtime.findfunctab", Tables}, {"runtime.gcbits", Tables}, {"runtime.epclntab", Tables},
	} {
		if strings.HasPrefix(name, marker.prefix) {
			return marker.line
		}
	}
	generated := strings.HasPrefix(name, "type:") || strings.HasPrefix(name, "go:")
	for _, prefix := range []string{"type:.eq.", "type:.hash.", "type:.namedata.", "type:.importpath.", "type:", "go:itab.", "go:"} {
		name = strings.TrimPrefix(name, prefix)
	}
	name, _, _ = strings.Cut(strings.TrimLeft(name, "*"), "[")
	name, _, _ = strings.Cut(name, ",")
	slash := strings.LastIndexByte(name, '/') + 1
	dot := strings.IndexByte(name[slash:], '.')
	if dot <= 0 || strings.ContainsAny(name[:slash+dot], " ({*") {
		if generated {
			return Types
		}
		return Rest
	}
	return strings.ReplaceAll(name[:slash+dot], "%2e", ".")
}

// Grown names the packages that weigh more in now than in before, the heaviest
// gain first, at most n of them.
func Grown(before, now Weights, n int) []string {
	type gain struct {
		name  string
		bytes int64
	}
	var gains []gain
	for name, bytes := range now {
		if more := bytes - before[name]; more > 0 {
			gains = append(gains, gain{name, more})
		}
	}
	slices.SortFunc(gains, func(a, b gain) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.name, b.name))
	})
	var lines []string
	for _, g := range gains[:min(n, len(gains))] {
		lines = append(lines, fmt.Sprintf("%s +%d (%d before)", g.name, g.bytes, before[g.name]))
	}
	return lines
}
