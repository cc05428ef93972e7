//go:build linux

// Command probe runs in the test's variant of the demo image only: it executes
// what the host asks for over a virtio port and says what came of it. The image
// that is built for anybody else has no such thing, and no login either.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"postern/crosscompile/images/probe/ask"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		<-time.After(time.Second) // init starts it again
		os.Exit(1)
	}
}

func run() error {
	path, err := portDevice()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := say(f, ask.Answer{Out: "hello"}); err != nil {
		return err
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var q ask.Question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		if err := say(f, answer(q)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func say(f *os.File, a ask.Answer) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return err
}

func answer(q ask.Question) ask.Answer {
	a := ask.Answer{ID: q.ID}
	if len(q.Args) == 0 {
		a.Code, a.Err = -1, "nothing to run"
		return a
	}
	cmd := exec.Command(q.Args[0], q.Args[1:]...)
	var out, words bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(q.Stdin), &out, &words
	if q.UID != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: q.UID, Gid: q.UID, Groups: q.Groups}}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	a.Out, a.Err, a.Code = out.String(), words.String(), cmd.ProcessState.ExitCode()
	if err != nil {
		a.Err, a.Code = err.Error(), -1
	}
	return a
}

// portDevice finds the port by the name that the host gave it.
func portDevice() (string, error) {
	found, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, path := range found {
		if name, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(name)) == ask.Port {
			return "/dev/" + filepath.Base(filepath.Dir(path)), nil
		}
	}
	return "", fmt.Errorf("no port is called %s", ask.Port)
}
