package store

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// call is one system call of a traced process that changed a file, a name, or
// acknowledged something, in the order in which they ended.
type call struct {
	kind  string // create, write, truncate, sync, datasync, syncdir, rename, unlink, ack
	file  int    // number of the open file's inode, for the first four kinds and sync
	name  string // base name
	to    string // of a rename
	at    int64
	data  string
	count int // of an ack
}

// traceWriter runs the writer under strace and returns what it did to dir.
func traceWriter(t testing.TB, dir string, args ...string) []call {
	t.Helper()
	calls, _ := traceWritten(t, dir, args...)
	return calls
}

// traceWritten also returns what the writer's counter said.
func traceWritten(t testing.TB, dir string, args ...string) ([]call, int64) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("this test needs strace: apt-get install strace")
	}
	out := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", append([]string{
		"-f", "-o", out, "-xx", "-s", "20000000", "-e", "signal=none", "-e",
		"trace=openat,close,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,dup,dup3,fcntl",
		os.Args[0], dir,
	}, args...)...)
	cmd.Env = append(os.Environ(), roleVariable+"=writer")
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("strace: %v\n%.2000s", err, text)
	}
	_, counter, _ := strings.Cut(string(text), writtenWord+" ")
	written := value(strconv.ParseInt(strings.TrimSpace(counter), 10, 64))(t)
	calls, err := readTrace(out, dir)
	must(t, err)
	return calls, written
}

func readTrace(path, dir string) ([]call, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 128<<20)
	p := &tracer{dir: dir, open: map[string]*handleOf{}, names: map[string]int{}, half: map[string]string{}}
	for scan.Scan() {
		if err := p.line(scan.Text()); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return p.calls, errors.Join(scan.Err(), f.Close())
}

type handleOf struct {
	file int // 0: a directory
	name string
	at   int64 // where the next write goes
}

type tracer struct {
	dir   string
	open  map[string]*handleOf // by descriptor
	names map[string]int       // live names to inode numbers
	last  int                  // highest inode number
	half  map[string]string    // unfinished calls, by thread
	calls []call
}

// line reads "PID call(args) = result", putting interrupted halves together.
func (p *tracer) line(text string) error {
	pid, rest, ok := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	if !ok || strings.HasPrefix(rest, "+++") || strings.HasPrefix(rest, "---") {
		return nil
	}
	if before, found := strings.CutSuffix(rest, " <unfinished ...>"); found {
		p.half[pid] = before
		return nil
	}
	if strings.HasPrefix(rest, "<... ") {
		_, after, _ := strings.Cut(rest, "resumed>")
		rest = p.half[pid] + after
		delete(p.half, pid)
	}
	at := strings.LastIndex(rest, ") = ")
	if at < 0 {
		if at = strings.LastIndex(rest, ")"); at < 0 || !strings.Contains(rest[at:], "= ") {
			return nil // cut off at the end
		}
	}
	open := strings.Index(rest, "(")
	if open < 0 || open > at {
		return nil
	}
	_, result, _ := strings.Cut(rest[at:], "= ")
	result, _, _ = strings.Cut(result, " ")
	if strings.HasPrefix(result, "-") || result == "?" {
		return nil
	}
	return p.call(rest[:open], strings.Split(rest[open+1:at], ", "), result)
}

func (p *tracer) call(name string, args []string, result string) error {
	switch name {
	case "openat":
		return p.openat(args, result)
	case "close":
		delete(p.open, args[0])
	case "dup", "dup3", "fcntl":
		if h, ok := p.open[args[0]]; ok && (name != "fcntl" || strings.Contains(args[1], "F_DUPFD")) {
			p.open[result] = h
		}
	case "write", "pwrite64":
		return p.write(name, args, result)
	case "ftruncate":
		if h, ok := p.open[args[0]]; ok {
			size, err := strconv.ParseInt(args[1], 10, 64)
			p.add(call{kind: "truncate", file: h.file, name: h.name, at: size})
			return err
		}
	case "fsync", "fdatasync":
		h, ok := p.open[args[0]]
		switch {
		case ok && h.file == 0:
			p.add(call{kind: "syncdir"})
		case ok && name == "fsync":
			p.add(call{kind: "sync", file: h.file, name: h.name})
		case ok:
			p.add(call{kind: "datasync", file: h.file, name: h.name})
		}
	case "rename", "renameat", "renameat2", "unlink", "unlinkat":
		return p.names2(name, args)
	}
	return nil
}

func (p *tracer) add(c call) { p.calls = append(p.calls, c) }

func (p *tracer) openat(args []string, fd string) error {
	path, err := unhex(args[1])
	if err != nil {
		return err
	}
	if path == p.dir {
		p.open[fd] = &handleOf{name: path}
		return nil
	}
	if filepath.Dir(path) != p.dir {
		return nil
	}
	name := filepath.Base(path)
	if _, known := p.names[name]; !known {
		if !strings.Contains(args[2], "O_CREAT") {
			return fmt.Errorf("%s was opened, but never made", name)
		}
		p.last++
		p.names[name] = p.last
		p.add(call{kind: "create", file: p.last, name: name})
	}
	if strings.Contains(args[2], "O_TRUNC") {
		p.add(call{kind: "truncate", file: p.names[name], name: name})
	}
	p.open[fd] = &handleOf{file: p.names[name], name: name}
	return nil
}

func (p *tracer) write(name string, args []string, result string) error {
	h, ok := p.open[args[0]]
	if !ok && args[0] != "1" {
		return nil
	}
	data, err := unhex(args[1])
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(result); err != nil || n != len(data) {
		return fmt.Errorf("%d bytes seen of a write of %s", len(data), result)
	}
	if !ok {
		if n, is := acked(data); is {
			p.add(call{kind: "ack", count: n})
		}
		return nil
	}
	at := h.at
	if name == "write" {
		h.at += int64(len(data))
	} else {
		if at, err = strconv.ParseInt(args[3], 10, 64); err != nil {
			return err
		}
	}
	p.add(call{kind: "write", file: h.file, name: h.name, at: at, data: data})
	return nil
}

// names2 reads the calls that change names.
func (p *tracer) names2(name string, args []string) error {
	var paths []string
	for _, a := range args {
		if strings.HasPrefix(a, `"`) {
			path, err := unhex(a)
			if err != nil {
				return err
			}
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 || filepath.Dir(paths[0]) != p.dir {
		return nil
	}
	from := filepath.Base(paths[0])
	if strings.HasPrefix(name, "unlink") {
		delete(p.names, from)
		p.add(call{kind: "unlink", name: from})
		return nil
	}
	to := filepath.Base(paths[1])
	p.names[to] = p.names[from]
	delete(p.names, from)
	p.add(call{kind: "rename", name: from, to: to})
	return nil
}

// unhex reads strace's "\x68\x69".
func unhex(s string) (string, error) {
	s, ok := strings.CutPrefix(s, `"`)
	s, ok2 := strings.CutSuffix(s, `"`)
	if !ok || !ok2 {
		return "", fmt.Errorf("%.40q is no whole string", s)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	return string(raw), err
}
