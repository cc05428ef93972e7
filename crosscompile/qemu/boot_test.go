//go:build linux

package qemu

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/crosscompile/qemu/port"
)

var _ = Flag()

// boot starts a guest with one job and ends it with the test.
func boot(t *testing.T, flavour string, spec Spec, job Job, a *Archive, modules ...string) *VM {
	t.Helper()
	Tools(t, "apt-get", "dpkg-deb", "depmod", "modprobe", "qemu-system-aarch64", "qemu-system-x86_64")
	kernel, err := FetchKernel(t.Context(), flavour)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Arch == "" {
		spec.Arch = "arm64"
	}
	spec.Kernel, spec.Job, spec.Initrd = kernel.Image, job.ID, filepath.Join(t.TempDir(), "initrd")
	if err := Initrd(t.Context(), kernel, spec.Arch, spec.Initrd, job, a, modules...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 11*time.Minute)
	vm, err := Start(ctx, spec)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vm.Close(); cancel() })
	return vm
}

func TestGuestRunsAJobAndSaysHowItEnded(t *testing.T) {
	Need(t, "short")
	vm := boot(t, "cloud-arm64", Spec{}, Job{ID: "boot", Mode: "job", Path: "/init", Args: []string{"no-such-program"}}, &Archive{})
	var hello Message
	var out []string
	for m := range vm.Lines() {
		switch m.Kind {
		case port.Hello:
			hello = m
		case port.Out:
			out = append(out, m.T)
		}
	}
	exit, err := vm.Result(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, vm.Tail(50))
	}
	if exit.RC != 2 || len(out) != 1 || !strings.HasPrefix(out[0], "guest: ") {
		t.Errorf("exit %d with output %q, want 2 and the usage", exit.RC, out)
	}
	if hello.Arch != "arm64" || hello.Page != 4096 || hello.MemKB < 100_000 || hello.Mode != "job" || hello.Kernel == "" {
		t.Errorf("hello is %+v", hello)
	}
	t.Logf("kernel %s said hello at %.1f guest s, exit at %.1f", hello.Kernel, hello.Up, exit.Up)
}
