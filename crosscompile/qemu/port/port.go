// Package port is what a test guest and its host say to each other: a job that
// travels in the initramfs, and lines of JSON that come back over the
// virtio-serial port. There is no handshake, so none can hang.
package port

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Name is the name of the virtio-serial port; without udev it is /dev/vport0p1.
const Name = "postern.guest.0"

// Version is the version of the protocol, said in hello.
const Version = 1

// Limits of one line and of one file that is brought back.
const (
	MaxLine = 64 << 10
	MaxFile = 4 << 20
)

// The kinds of messages.
const (
	Hello = "hello" // first line of every program that opens the port
	Out   = "out"   // one line of the job's output
	Step  = "step"  // one step of a story
	Ack   = "ack"   // an acknowledged write
	File  = "file"  // a file that is brought back
	Exit  = "exit"  // last line; without it the run failed
)

// Job is what the guest is to do: /job.json of the initramfs.
type Job struct {
	ID       string   `json:"id"`
	Mode     string   `json:"mode"` // "job": run Path and power off; "switch": mount the root and become its init
	Path     string   `json:"path,omitempty"`
	Args     []string `json:"args,omitempty"` // without the program's name
	Env      []string `json:"env,omitempty"`
	Dir      string   `json:"dir,omitempty"`
	Deadline int      `json:"deadline,omitempty"` // seconds; then SIGQUIT, 5 s later SIGKILL; 0 for none
	Mounts   []Mount  `json:"mounts,omitempty"`
	Bring    []string `json:"bring,omitempty"` // files, or directories whose files are brought back after the job
	Root     *Mount   `json:"root,omitempty"`  // what becomes /, its Dir is ignored; /job of the initramfs is seen there, too
	Init     []string `json:"init,omitempty"`  // mode switch: the init and its arguments
}

// Mount is one mount; a device is waited for up to 5 s.
type Mount struct {
	Device  string `json:"device"`
	Dir     string `json:"dir"`
	Type    string `json:"type"`
	Options string `json:"options,omitempty"` // "ro", "noatime", and what the file system understands
}

// Message is one line.
type Message struct {
	Kind   string  `json:"k"`
	V      int     `json:"v,omitempty"`
	Job    string  `json:"job,omitempty"`
	Mode   string  `json:"mode,omitempty"`
	Kernel string  `json:"kernel,omitempty"`
	Arch   string  `json:"arch,omitempty"`
	Page   int     `json:"page,omitempty"`
	MemKB  int     `json:"mem_kb,omitempty"` // MemTotal
	Up     float64 `json:"up,omitempty"`     // seconds since the kernel started
	S      int     `json:"s,omitempty"`      // 1 output, 2 errors
	T      string  `json:"t,omitempty"`
	Cut    bool    `json:"cut,omitempty"`  // the line was longer than MaxLine
	Open   bool    `json:"open,omitempty"` // the line had no end
	Name   string  `json:"name,omitempty"`
	OK     bool    `json:"ok,omitempty"`
	Got    string  `json:"got,omitempty"`
	Seq    uint64  `json:"seq,omitempty"`
	B64    []byte  `json:"b64,omitempty"`
	RC     int     `json:"rc,omitempty"`
	Signal string  `json:"signal,omitempty"` // what ended the job, if a signal did
}

// ErrProtocol is wrapped by every error about what the guest said.
var ErrProtocol = errors.New("guest protocol")

// Parse reads one line, strictly: an unknown kind or field is an error.
func Parse(line []byte) (Message, error) {
	var m Message
	d := json.NewDecoder(strings.NewReader(string(line)))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %q: %w", ErrProtocol, line[:min(len(line), 200)], err)
	}
	if d.More() {
		return m, fmt.Errorf("%w: more than one value in %q", ErrProtocol, line[:min(len(line), 200)])
	}
	switch m.Kind {
	case Hello, Out, Step, Ack, File, Exit:
		return m, nil
	}
	return m, fmt.Errorf("%w: unknown kind %q", ErrProtocol, m.Kind)
}

// Read hands every line to visit, in order, until the end, and checks the
// order: hello with the right job first, nothing after exit.
func Read(r io.Reader, job string, visit func(Message)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), MaxFile*3/2)
	greeted, ended := false, false
	for s.Scan() {
		m, err := Parse(s.Bytes())
		switch {
		case err != nil:
			return err
		case m.Kind == Hello && (m.Job != job || m.V != Version):
			return fmt.Errorf("%w: hello of job %q version %d, want job %q version %d: a stale image?", ErrProtocol, m.Job, m.V, job, Version)
		case m.Kind != Hello && !greeted:
			return fmt.Errorf("%w: %s before hello", ErrProtocol, m.Kind)
		case ended:
			return fmt.Errorf("%w: %s after exit", ErrProtocol, m.Kind)
		}
		greeted, ended = true, m.Kind == Exit
		visit(m)
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// Writer says messages, one at a time.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Say writes one line. Safe for concurrent use.
func (w *Writer) Say(m Message) error {
	if len(m.T) > MaxLine {
		m.T, m.Cut = m.T[:MaxLine], true
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(append(b, '\n'))
	return err
}
