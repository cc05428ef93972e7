//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/crosscompile/qemu/port"
)

// runJob runs the job's program, says what it prints, brings its files back
// and says how it ended.
func runJob(w *port.Writer, job port.Job) error {
	var readers sync.WaitGroup
	var files [2]*os.File
	for i := range files {
		r, out, err := os.Pipe()
		if err != nil {
			return err
		}
		files[i] = out
		readers.Go(func() { relay(w, i+1, r) })
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	dir := job.Dir
	if dir == "" {
		dir = "/"
	}
	env := append(job.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "TMPDIR=/tmp") // the first of a name counts
	process, err := os.StartProcess(job.Path, append([]string{job.Path}, job.Args...), &os.ProcAttr{
		Dir: dir, Env: env, Files: []*os.File{nothing, files[0], files[1]}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", job.Path, err)
	}
	for _, f := range files {
		_ = f.Close()
	}
	stop := limit(process, job.Deadline)
	status, err := reap(process.Pid)
	stop()
	if err != nil {
		return err
	}
	settle(&readers)
	end := port.Message{Kind: port.Exit, RC: status.ExitStatus()}
	if status.Signaled() {
		end.RC, end.Signal = 128+int(status.Signal()), status.Signal().String()
	}
	for _, path := range job.Bring {
		if err := bring(w, path); err != nil {
			_ = w.Say(port.Message{Kind: port.Out, S: 2, T: "guest: bring back: " + err.Error()})
			end.RC = max(end.RC, 1)
		}
	}
	syscall.Sync()
	end.Up = uptime()
	return w.Say(end)
}

// reap waits for every process that ends, as PID 1 must, until pid has.
func reap(pid int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case got == pid:
			return status, nil
		}
	}
}

// limit ends the process after seconds, first so that a Go program shows what it does.
func limit(p *os.Process, seconds int) (stop func()) {
	if seconds <= 0 {
		return func() {}
	}
	quit := time.AfterFunc(time.Duration(seconds)*time.Second, func() { _ = p.Signal(syscall.SIGQUIT) })
	kill := time.AfterFunc(time.Duration(seconds+5)*time.Second, func() { _ = p.Signal(syscall.SIGKILL) })
	return func() { quit.Stop(); kill.Stop() }
}

// settle gives the output 2 s to end: a process that the job left behind may
// hold it open for ever.
func settle(readers *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
	}
}

// relay says each line of r; a longer one than MaxLine is cut and marked.
func relay(w *port.Writer, stream int, r io.Reader) {
	reader := bufio.NewReaderSize(r, port.MaxLine)
	cut := false
	for {
		line, err := reader.ReadSlice('\n')
		text, ended := strings.CutSuffix(string(line), "\n")
		full := errors.Is(err, bufio.ErrBufferFull)
		if !cut && (len(line) > 0) {
			_ = w.Say(port.Message{Kind: port.Out, S: stream, T: text, Cut: full, Open: !ended && !full})
		}
		cut = full
		if err != nil && !full {
			return
		}
	}
}

// bring says a file, or every file of a directory by its path.
func bring(w *port.Writer, path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a job that failed early has written nothing
		case err != nil || !d.Type().IsRegular():
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if len(content) > port.MaxFile {
			return fmt.Errorf("%s has %d bytes, at most %d can be brought back", name, len(content), port.MaxFile)
		}
		return w.Say(port.Message{Kind: port.File, Name: name, B64: content})
	})
}
