package crosscompile

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Sizes are the weights of every target by its name. The file has one line a
// package and one column a target.
type Sizes map[string]Weights

const sizesHead = "# bytes in the stripped binary by package and target; go test ./crosscompile -run Budget -record writes this file\n"

// Total is the size of the binary in bytes.
func (w Weights) Total() int64 {
	var sum int64
	for _, bytes := range w {
		sum += bytes
	}
	return sum
}

// ReadSizes reads what Write wrote.
func ReadSizes(path string) (Sizes, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	all := Sizes{}
	var columns []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), "\t")
		fields := strings.Fields(rest)
		switch {
		case strings.HasPrefix(name, "#") || name == "":
		case columns == nil:
			columns = fields
			for _, c := range columns {
				all[c] = Weights{}
			}
		case len(fields) != len(columns):
			return nil, fmt.Errorf("%s: %q has %d columns, want %d", path, name, len(fields), len(columns))
		default:
			for i, field := range fields {
				bytes, err := strconv.ParseInt(field, 10, 64)
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", path, name, err)
				}
				if bytes != 0 {
					all[columns[i]][strings.TrimSpace(name)] = bytes
				}
			}
		}
	}
	if len(columns) == 0 {
		return nil, errors.New(path + " names no target")
	}
	return all, nil
}

// Write replaces the file at path.
func (s Sizes) Write(path string) error {
	columns := slices.Sorted(maps.Keys(s))
	names := map[string]bool{}
	for _, w := range s {
		for name := range w {
			names[name] = true
		}
	}
	var out strings.Builder
	out.WriteString(sizesHead)
	fmt.Fprintf(&out, "%-50s\t%s\n", "package", strings.Join(columns, " "))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&out, "%-50s\t", name)
		for i, c := range columns {
			fmt.Fprintf(&out, "%*d", len(c)+min(i, 1), s[c][name])
		}
		out.WriteString("\n")
	}
	return os.WriteFile(path, []byte(out.String()), 0o644) //nolint:gosec // a file of the repository
}
