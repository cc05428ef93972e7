package main

import (
	"context"
	"io"
)

// interruptible is a reader that gives up when ctx ends: whoever is asked for
// something may press Ctrl-C, which a read of a terminal or a pipe does not hear.
type interruptible struct {
	ctx  context.Context
	from io.Reader
}

// Read implements io.Reader. What is read after ctx ended is lost.
func (r interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	own, done := make([]byte, len(p)), make(chan result, 1)
	go func() {
		n, err := r.from.Read(own)
		done <- result{n, err}
	}()
	select {
	case got := <-done:
		defer clear(own)
		return copy(p, own[:got.n]), got.err
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	}
}
