//go:build linux

package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/crosscompile/qemu/port"
)

// Message is one line that a guest said.
type Message = port.Message

// Job is what a guest is to do.
type Job = port.Job

// Mount is a mount of a job.
type Mount = port.Mount

// VM is a running machine. Its methods may be called from any goroutine.
type VM struct {
	dir   string
	job   string
	lines *queue
	done  chan struct{} // QEMU has ended and everything that the guest said was read
	kill  context.CancelFunc

	mu    sync.Mutex // guards what follows
	err   error      // how QEMU ended
	said  error      // what was wrong with the guest's words
	heard bool       // the guest said something
	exit  *Message
	spent time.Duration // QEMU's processor time
}

// Sentinels of Result.
var (
	// ErrNoStart means that QEMU gave up before the guest said anything: it
	// cannot be the guest's doing.
	ErrNoStart = errors.New("the machine did not start")
	// ErrNoExit means that the guest ended without an exit line.
	ErrNoExit = errors.New("the guest ended without an exit line")
	// ErrCrash means that the console shows a panic, an oops or an out-of-memory kill.
	ErrCrash = errors.New("the guest's kernel complained")
)

// Start boots a machine. It ends when the guest powers off, when ctx ends, with
// Kill, and when this process dies. Its folder is removed by Close.
func Start(ctx context.Context, s Spec) (*VM, error) {
	program, err := s.program()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pqemu-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "port"), Net: "unix"})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithCancel(ctx)
	vm := &VM{dir: dir, job: s.Job, lines: newQueue(), done: make(chan struct{}), kill: cancel}
	cmd := exec.CommandContext(ctx, program, s.args(dir)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	heard := make(chan error, 1)
	go func() { heard <- vm.listen(listener, s.Job) }()
	started := make(chan error, 1)
	go vm.run(cmd, &words, listener, started, heard)
	if err := <-started; err != nil {
		cancel()
		<-vm.done
		return nil, errors.Join(fmt.Errorf("start %s: %w", program, err), os.RemoveAll(dir))
	}
	return vm, nil
}

// run starts QEMU and waits for it, on one thread: Pdeathsig follows the thread
// that started the child.
func (vm *VM) run(cmd *exec.Cmd, words *bytes.Buffer, listener *net.UnixListener, started chan<- error, heard <-chan error) {
	runtime.LockOSThread()
	err := cmd.Start()
	started <- err
	if err == nil {
		if err = cmd.Wait(); err != nil {
			err = fmt.Errorf("qemu: %w %s", err, strings.TrimSpace(words.String()))
		}
	}
	_ = listener.SetDeadline(time.Now()) // if QEMU never connected
	said := <-heard
	_ = listener.Close()
	vm.mu.Lock()
	vm.err, vm.said = err, said
	if state := cmd.ProcessState; state != nil {
		vm.spent = state.UserTime() + state.SystemTime()
	}
	vm.mu.Unlock()
	vm.lines.close()
	close(vm.done)
}

// listen reads what the guest says until QEMU closes the port.
func (vm *VM) listen(listener *net.UnixListener, job string) error {
	conn, err := listener.Accept()
	if err != nil {
		return nil // QEMU ended before it connected, and says why itself
	}
	defer func() { _ = conn.Close() }()
	err = port.Read(conn, job, func(m Message) {
		vm.mu.Lock()
		vm.heard = true
		if m.Kind == port.Exit {
			vm.exit = &m
		}
		vm.mu.Unlock()
		vm.lines.put(m)
	})
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

// Lines is everything that the guest says, in order; it is closed when the
// machine has ended. Nothing is lost if nobody reads.
func (vm *VM) Lines() <-chan Message { return vm.lines.out }

// Wait waits for the end of the machine. If ctx ends first the machine is
// killed. The error tells how QEMU ended and what was wrong with the guest's words,
// not whether the guest's job went well: see Result.
func (vm *VM) Wait(ctx context.Context) error {
	select {
	case <-vm.done:
	case <-ctx.Done():
		vm.kill()
		<-vm.done
		return fmt.Errorf("machine: %w", ctx.Err())
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return errors.Join(vm.said, vm.err)
}

// Result waits for the end and returns the guest's exit line. It is an error if
// there is none (ErrNoExit; ErrNoStart if QEMU itself gave up), and if the
// console shows that the kernel complained (ErrCrash), whatever the exit line says.
func (vm *VM) Result(ctx context.Context) (Message, error) {
	err := vm.Wait(ctx)
	vm.mu.Lock()
	exit, heard := vm.exit, vm.heard
	vm.mu.Unlock()
	if line := Complaint(vm.console()); line != "" {
		return Message{}, errors.Join(err, fmt.Errorf("%w: %s", ErrCrash, line))
	}
	var end *exec.ExitError
	if !heard && errors.As(err, &end) && end.ExitCode() > 0 { // not by a signal: that is ours
		return Message{}, errors.Join(ErrNoStart, err)
	}
	if exit == nil {
		return Message{}, errors.Join(ErrNoExit, err)
	}
	return *exit, err
}

// Kill ends the machine like a power cut and waits until it has ended.
func (vm *VM) Kill() {
	vm.kill()
	<-vm.done
}

// consoles names a folder in which every machine's console is kept.
const consoles = "POSTERN_CONSOLES"

// Close kills the machine, keeps its console where somebody wants to read it,
// and removes its folder.
func (vm *VM) Close() error {
	vm.Kill()
	for range vm.lines.out { // lets its goroutine end
	}
	return errors.Join(vm.keep(os.Getenv(consoles)), os.RemoveAll(vm.dir))
}

// keep copies the console to dir, under the job's name and the machine's.
func (vm *VM) keep(dir string) error {
	content, err := os.ReadFile(vm.Console())
	if dir == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	name := vm.job + strings.TrimPrefix(filepath.Base(vm.dir), "pqemu") + ".log"
	return errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name), content, 0o644))
}

// Spent is the processor time that the machine took, known once it has ended.
// On an idle host the machine runs for about that long.
func (vm *VM) Spent() time.Duration {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.spent
}

// Console is the path of the console's log, which is for people.
func (vm *VM) Console() string { return filepath.Join(vm.dir, "console") }

func (vm *VM) console() string {
	content, _ := os.ReadFile(vm.Console())
	return string(content)
}

// Tail returns the last n lines of the console.
func (vm *VM) Tail(n int) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(vm.console(), "\r", "")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Complaint returns the first console line that shows a panic, an oops or an
// out-of-memory kill, "" if there is none.
func Complaint(console string) string {
	bad := regexp.MustCompile(`(?m)^.*(Kernel panic|Internal error: Oops|Oops: |BUG: |Out of memory: Killed|invoked oom-killer|oom-kill:|general protection fault|Unable to handle kernel).*$`)
	return strings.TrimSpace(bad.FindString(console))
}
