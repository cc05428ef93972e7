//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"postern/crosscompile/qemu"
	"postern/crosscompile/qemu/port"
)

// tail is how much of the console is shown after a failure.
const tail = 50

// follow streams what the test prints, keeps the files that come back and
// returns the status. Whatever is unclear is a failure.
func (p *plan) follow(ctx context.Context, vm *qemu.VM, stdout, stderr io.Writer) int {
	var lost error
	for m := range vm.Lines() {
		switch m.Kind {
		case port.Out:
			show(m, stdout, stderr)
		case port.File:
			lost = errors.Join(lost, p.keep(m))
		}
	}
	exit, err := vm.Result(ctx)
	status := exit.RC
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		status, err = statusLate, errors.New("interrupted")
	case ctx.Err() != nil && !errors.Is(err, qemu.ErrCrash):
		status, err = statusLate, fmt.Errorf("no end within %s", p.deadline)
	case errors.Is(err, qemu.ErrNoStart):
		status = statusNoStart
	case err != nil:
		status = statusSilent
	case lost != nil:
		status, err = statusSilent, lost
	case exit.Signal != "":
		err = fmt.Errorf("the test was ended by a signal: %s", exit.Signal)
	case status == 0:
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "exec:", err)
	}
	_, _ = fmt.Fprintf(stderr, "exec: status %d; the end of the console:\n%s\n", status, vm.Tail(tail))
	return status
}

func show(m qemu.Message, stdout, stderr io.Writer) {
	w, text := stdout, m.T
	if m.S == 2 {
		w = stderr
	}
	if m.Cut {
		text += " [cut]"
	}
	if !m.Open {
		text += "\n"
	}
	_, _ = io.WriteString(w, text)
}

// keep writes a file that came back to where the test was told to write it.
func (p *plan) keep(m qemu.Message) error {
	host, known := p.back[m.Name]
	if !known {
		for guest, dir := range p.back {
			if rest, below := strings.CutPrefix(m.Name, guest); below && strings.HasSuffix(guest, "/") && filepath.IsLocal(rest) {
				host, known = filepath.Join(dir, rest), true
			}
		}
	}
	if !known {
		return fmt.Errorf("the guest sent %q, which nobody asked for", m.Name)
	}
	return os.WriteFile(host, m.B64, 0o644)
}
