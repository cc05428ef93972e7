//go:build linux

// Command exec runs a test binary of another architecture in a machine of its
// own, for go test:
//
//	go build -o "$BIN/exec" ./crosscompile/qemu/exec
//	GOARCH=arm64 CGO_ENABLED=0 go test -p 1 -exec "$BIN/exec -arch arm64" ./store
//
// The binary, the package's testdata and its arguments travel in an initramfs;
// its output is streamed, its coverage and profiles are brought back. The
// status is the test's own, or
//
//	124  the deadline has passed: -test.timeout and 60 s
//	125  the guest did not say how the test ended, or its kernel complained
//	126  the machine could not be started
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"postern/crosscompile/qemu"
)

// The statuses that are not the test's own.
const (
	statusLate    = 124
	statusSilent  = 125
	statusNoStart = 126
)

// options are the runner's flags.
type options struct {
	arch, cpu, kernel string
	memory            int
	env, with, root   string
	disk              string
	deadline          time.Duration
	guest             string
	verbose           bool
	binary            string
	args              []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("exec", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.arch, "arch", "arm64", "architecture of the machine: arm64 or amd64")
	flags.StringVar(&o.cpu, "cpu", "", "CPU of the machine; cortex-a76 for 16 KB pages")
	flags.StringVar(&o.kernel, "kernel", "", "flavour of Debian's kernel (cloud-ARCH); arm64-16k has 16 KB pages")
	flags.IntVar(&o.memory, "mem", 768, "memory of the machine in MB")
	flags.StringVar(&o.env, "env", "", "names of environment variables that the test gets, with commas")
	flags.StringVar(&o.with, "with", "", "further files and folders of the project that the test reads, from its root, with commas")
	flags.StringVar(&o.root, "root", "", "Debian packages whose programs the test calls, with commas")
	flags.StringVar(&o.disk, "disk", "", "a scratch disk, ext4:64M or f2fs:64M: the test's temporary folder and POSTERN_TEST_DIR")
	flags.DurationVar(&o.deadline, "deadline", 0, "instead of -test.timeout and 60 s")
	flags.StringVar(&o.guest, "guest", "", "a PID 1 instead of the guest program")
	flags.BoolVar(&o.verbose, "verbose", false, "say how long the machine ran, and how much of the processor it took")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() == 0 {
		return o, fmt.Errorf("usage: exec [flags] PACKAGE.test [arguments]")
	}
	o.binary, o.args = flags.Arg(0), flags.Args()[1:]
	if o.kernel == "" {
		o.kernel = "cloud-" + o.arch
	}
	if o.cpu == "" && strings.HasSuffix(o.kernel, "-16k") {
		o.cpu = "cortex-a76" // smaller cores have no such pages: the machine would hang in silence
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "exec:", err)
		return 2
	}
	work, err := os.MkdirTemp("", "qexec-")
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "exec:", err)
		return statusNoStart
	}
	defer func() { _ = os.RemoveAll(work) }()
	began := time.Now()
	p, err := prepare(ctx, o, work)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "exec:", err)
		return statusNoStart
	}
	ctx, cancel := context.WithTimeout(ctx, p.deadline)
	defer cancel()
	vm, err := qemu.Start(ctx, p.spec)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "exec:", err)
		return statusNoStart
	}
	defer func() { _ = vm.Close() }()
	status := p.follow(ctx, vm, stdout, stderr)
	if o.verbose {
		_, _ = fmt.Fprintf(stderr, "exec: %s on %s: status %d after %.1f s, of the processor %.1f s\n",
			filepath.Base(o.binary), o.kernel, status, time.Since(began).Seconds(), vm.Spent().Seconds())
	}
	return status
}
