package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// eraseWord is what an eraser waits for.
const eraseWord = "erase"

// eraser erases a claim that only root may remove, for a process that has
// become another account meanwhile: a child that stays what we were. When we
// end without a word, so does it.
type eraser struct {
	cmd  *exec.Cmd // nil while we are who we were
	tell io.WriteCloser
	said bytes.Buffer
}

func (e *eraser) start(ctx context.Context, path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, "connect", "--claim-file", path, "--erase-when-told")
	cmd.Env, cmd.Stderr = []string{"GOTRACEBACK=none"}, &e.said
	if e.tell, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("connect: what is to erase the claim: %w", err)
	}
	e.cmd = cmd
	return nil
}

// erase erases the file, by the child if there is one.
func (e *eraser) erase(path string) error {
	if e.cmd == nil {
		return eraseFile(path)
	}
	if _, err := io.WriteString(e.tell, eraseWord); err != nil {
		return err
	}
	return e.end()
}

// end ends the child, if there is one, and says what it met.
func (e *eraser) end() error {
	if e.cmd == nil {
		return nil
	}
	err := errors.Join(e.tell.Close(), e.cmd.Wait())
	e.cmd = nil
	if err != nil && e.said.Len() > 0 {
		text, _, _ := strings.Cut(strings.TrimPrefix(e.said.String(), "postern: "), "\n")
		return errors.New(text)
	}
	return err
}

// eraseWhenTold is the child.
func eraseWhenTold(from io.Reader, path string) error {
	word, err := io.ReadAll(io.LimitReader(from, int64(len(eraseWord)+1)))
	if err != nil || string(word) != eraseWord {
		return err // nobody wants it
	}
	return eraseFile(path)
}
