//go:build linux

package qemu

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// smallest is the memory in MB of the machine on which the product is promised
// to work: root on a disk, no memory set aside for DMA.
var smallest = flag.Int("memory", 64, "MB of the small machine")

// productRoot makes a root with the product and the guest program alone.
func productRoot(t *testing.T, arch string) string {
	t.Helper()
	agent, err := BuildAgent(t.Context(), arch)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := BuildGuest(t.Context(), arch)
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if err := furnish(tree); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{agent: "usr/bin/postern", guest: "sbin/guest"} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(tree, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(tree, "newroot"), 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "root")
	if err := makeExt4(t.Context(), image, tree); err != nil {
		t.Fatal(err)
	}
	return image
}

// TestProductWorksInASmallMachine lets authority and agent live in one small machine:
// connect, take a token, then the agent alone serves it from what it keeps.
func TestProductWorksInASmallMachine(t *testing.T) {
	Need(t, "short")
	Tools(t, "mke2fs")
	job := Job{ID: "memory", Mode: "switch", Root: &Mount{Device: "/dev/vda", Type: "ext4"}, Init: []string{"/sbin/guest", "memory"}}
	spec := Spec{CPU: "cortex-a53", MemMB: *smallest, Append: "cma=0", Disks: []Disk{{File: productRoot(t, "arm64"), Snapshot: true}}}
	vm := boot(t, "cloud-arm64", spec, job, &Archive{}, "ext4")
	steps := vm.Steps(t, []string{"authority", "agent", "connect", "token", "together", "alone", "token-offline", "agent-alone"}, 10*time.Minute)
	if _, err := vm.Result(t.Context()); err != nil {
		t.Error(err)
	}
	var total, available, peak int
	if _, err := fmt.Sscanf(steps["agent-alone"].Got, "total_kb=%d available_kb=%d agent_hwm_kb=%d", &total, &available, &peak); err != nil {
		t.Fatalf("figures %q: %v", steps["agent-alone"].Got, err)
	}
	if total > *smallest<<10 || peak < 1000 {
		t.Errorf("a machine of %d MB has %d kB, the agent's peak is %d kB: these are no figures", *smallest, total, peak)
	}
}
