package main

import (
	"os"
	"path/filepath"
	"time"
)

// machineNeeds are the programs and files of the tiers that boot machines.
func machineNeeds() []need {
	return []need{
		{"qemu-system-aarch64", "qemu-system-arm"},
		{"qemu-system-x86_64", "qemu-system-x86"},
		{"qemu-img", "qemu-utils"},
		{"depmod", "kmod"},
		{"modprobe", "kmod"},
		{"xz", "xz-utils"},
		{"mke2fs", "e2fsprogs"},
		{"mkfs.f2fs", "f2fs-tools"},
		{"cpio", "cpio"},
		{"mmdebstrap", "mmdebstrap"},
		{"busybox", "busybox-static"},
		{"genimage", "genimage"},
		{"mksquashfs", "squashfs-tools"},
		{"mkfs.vfat", "dosfstools"},
		{"mcopy", "mtools"},
		{"/usr/lib/u-boot/qemu_arm64/u-boot.bin", "u-boot-qemu"},
		{"/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "qemu-efi-aarch64"},
		{"mkimage", "u-boot-tools"},
		{"fdtput", "device-tree-compiler"},
		{"/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu"},
		{"/usr/share/seabios/bios.bin", "seabios"},
	}
}

// machines are the packages whose tests boot machines: one at a time, since each
// keeps the cores busy.
const machines = "postern/crosscompile/qemu"

// pictures are the packages of images, which boot machines, too.
const pictures = "postern/crosscompile/images"

// runnerPath is where the runner of foreign tests is built.
func runnerPath() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "postern", "qemu", "exec")
}

// calledTools are the Debian packages whose programs the tests call in a machine.
const calledTools = "bash,coreutils,curl,strace,iproute2,acl,util-linux,mount,grep,sed,procps"

// foreign tests packages in machines of another architecture or kernel. Each
// package has a machine of its own, which the runner ends a minute after the
// test's timeout: before the step is over, so that it can say where it was.
func foreign(name, arch, runner string, limit time.Duration, args ...string) step {
	run := runnerPath() + " -arch " + arch + " -disk ext4:256M -root " + calledTools + " -with agent/challenge,platform/linux,store " + runner
	return step{
		name: name, env: []string{"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=0"},
		test: append([]string{"-p", "1", "-vet", "off", "-timeout", (limit - 90*time.Second).String(), "-exec", run}, args...), limit: limit,
	}
}

func buildRunner() step {
	return step{name: "runner", run: []string{"go", "build", "-o", runnerPath(), "./crosscompile/qemu/exec"}, limit: time.Minute}
}

// lowRooms are the rooms that talk to the kernel. The init files and what
// installs them are data for any architecture: the host tests them, and the boots do.
func lowRooms() []string {
	return []string{"./platform/linux", "./agent/challenge/...", "./agent/endpoint/..."}
}

// foreignStore tests the store in a machine, with few trials each: every trial
// starts a process or waits for a disk.
func foreignStore(name, arch, runner string, limit time.Duration, trials []string) step {
	return foreign(name, arch, runner, limit, append([]string{"./store"}, trials...)...)
}

// few is for every change: all but the tests that trace dozens of processes or
// read thousands of files, which take longer there than all others together.
func few() []string {
	return []string{
		"-store.kills=1", "-store.damage=3", "-store.days=1", "-rapid.checks=3",
		"-skip", "TestPowerCutHarness|TestDamageCorpus|TestAnyBrokenNumber|TestST13|TestST10|TestFailedFirstUpdate|TestST9_",
	}
}

// more is for a machine with time. What is left out judges the tests themselves:
// no processor changes that, and it wants many trials.
func more() []string {
	return []string{
		"-store.kills=5", "-store.damage=50", "-store.images=100", "-store.every=6", "-store.days=10", "-rapid.checks=20",
		"-skip", "TestPowerCutHarness|TestDamageCorpus",
	}
}

// stories are the black-box stories, played by the agent's own binary in a
// machine that has no name and no clock but QEMU's; names ends the pattern of go test -run.
func stories(names string, limit time.Duration) step {
	return foreign("arm64: stories", "arm64", "", limit, "-ldflags", "-s -w", "./agent", "-run", "^TestStories$"+names)
}

// booted is what every change must pass in machines.
func booted() []step {
	return []step{
		buildRunner(),
		foreign("arm64: platform, challenge, endpoint", "arm64", "", 6*time.Minute, lowRooms()...),
		stories("/^story$/^(first-five-minutes|damaged|dev|other-user)$", 4*time.Minute),
		foreignStore("arm64, pages of 16 KB: store", "arm64", "-kernel arm64-16k", 5*time.Minute, few()),
		inMachines("machines", "short", 14*time.Minute),
	}
}

// inMachines runs the tests that boot their own machines.
func inMachines(name, tier string, limit time.Duration) step {
	return step{
		name: name, env: []string{"CGO_ENABLED=0", "POSTERN_QEMU=" + tier},
		test: []string{"-p", "1", "-timeout", (limit - time.Minute).String(), "./..."}, only: []string{machines, pictures}, limit: limit,
	}
}

// hardware is everything that machines can show.
func hardware() []step {
	return []step{
		buildRunner(),
		foreign("arm64: platform, challenge, endpoint", "arm64", "", 15*time.Minute, lowRooms()...),
		stories("", 20*time.Minute),
		foreignStore("arm64: store", "arm64", "", 20*time.Minute, more()),
		foreignStore("arm64, pages of 16 KB: store", "arm64", "-kernel arm64-16k", 20*time.Minute, more()),
		foreign("amd64: platform", "amd64", "", 10*time.Minute, "./platform/linux"),
		foreignStore("amd64: store", "amd64", "", 15*time.Minute, few()),
		foreign("arm64: the rooms above", "arm64", "", 12*time.Minute, "./agent/lifecycle", "./agent/config", "./agent/token", "./agent/audit", "./agent/control", "./agent/verb"),
		foreign("arm64: credential", "arm64", "", 25*time.Minute, "./agent/credential", "-rapid.checks=5"),
		foreign("arm64: authorities", "arm64", "", 15*time.Minute, "./agent/authority/..."),
		inMachines("machines", "full", 95*time.Minute),
	}
}

func machineTiers() []tier {
	return []tier{
		{
			name: "boot", what: "machines: the low rooms on arm64, 64 MB of memory, and the short form of everything that boots",
			limit: 60 * time.Minute, packages: append(basics(), machineNeeds()...), steps: booted(),
		},
		{
			name: "hardware", what: "machines, in full: arm64, amd64, pages of 16 KB, every init, power cuts, the image (at most 4.5 h)",
			limit: 270 * time.Minute, packages: append(basics(), machineNeeds()...), steps: hardware(),
		},
		{
			name: "inits", what: "boards under systemd, OpenRC, busybox, sysvinit, runit and s6 with what install writes, from flash to second stop; as root (at most 3 h)",
			limit: 3 * time.Hour, packages: append(basics(), machineNeeds()...),
			steps: []step{{name: "inits", env: []string{"CGO_ENABLED=0", "POSTERN_QEMU=full"}, test: []string{"-timeout", "170m", "./crosscompile/qemu/inits"}}},
		},
	}
}
