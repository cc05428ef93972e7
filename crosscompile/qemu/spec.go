//go:build linux

package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"postern/crosscompile/qemu/port"
)

// Disk is a virtio disk; the first is /dev/vda.
type Disk struct {
	File     string // on the host
	Format   string // "raw" if empty
	Snapshot bool   // writes are forgotten, so that one image serves every run
	LogFile  string // raw log of every write and flush (blklogwrites)
	ReadOnly bool
	Scratch  bool // for this run only: the guest's flushes stay with QEMU
	Serial   string
}

// Spec is a machine.
type Spec struct {
	Arch         string // arm64 (if empty) or amd64
	CPU          string // cortex-a72 (if empty); cortex-a53 for a small core, cortex-a76 for 16 KB pages
	MemMB, CPUs  int    // 192 and 1 if 0
	Kernel       string // with Initrd and Append; or Firmware
	Initrd       string
	Append       string // added to console, quiet and panic=-1
	Firmware     string // -bios
	Job          string // the id that hello must say; it is put on the kernel's command line, too
	Disks        []Disk
	RTC          string // the wall clock at the start: 1970-01-01T00:00:00
	SMBIOSSerial string
	Net          bool     // a user network, restricted to the guest itself
	Reboot       bool     // a reboot of the guest does not end the machine
	Extra        []string // further arguments
}

// program is the emulator of the architecture.
func (s Spec) program() (string, error) {
	switch s.Arch {
	case "arm64", "":
		return Find("qemu-system-aarch64")
	case "amd64":
		return Find("qemu-system-x86_64")
	}
	return "", fmt.Errorf("no machine for architecture %q", s.Arch)
}

// args is the command line. KVM is not an option: on a nested host its device
// opens and the guest hangs.
func (s Spec) args(dir string) []string {
	machine, cpu, console := "virt", "cortex-a72", "ttyAMA0"
	accel := "tcg,thread=multi"
	if s.Arch == "amd64" {
		machine, cpu, console, accel = "q35", "qemu64", "ttyS0", "tcg"
	}
	if s.CPU != "" {
		cpu = s.CPU
	}
	args := []string{
		"-M", machine, "-cpu", cpu, "-accel", accel, "-m", strconv.Itoa(or(s.MemMB, 192)), "-smp", strconv.Itoa(or(s.CPUs, 1)),
		"-nodefaults", "-no-user-config", "-nographic", "-monitor", "none", "-serial", "file:" + filepath.Join(dir, "console"),
		"-device", "virtio-serial-pci", "-chardev", "socket,id=port,path=" + filepath.Join(dir, "port"),
		"-device", "virtserialport,chardev=port,name=" + port.Name, "-device", "virtio-rng-pci",
	}
	if !s.Reboot {
		args = append(args, "-no-reboot")
	}
	if s.Net {
		args = append(args, "-nic", "user,model=virtio-net-pci,restrict=on")
	} else {
		args = append(args, "-nic", "none")
	}
	if s.Kernel != "" {
		args = append(args, "-kernel", s.Kernel, "-append", strings.Join(strings.Fields("console="+console+" quiet panic=-1 postern.job="+s.Job+" "+s.Append), " "))
	}
	for _, pair := range [][2]string{{"-initrd", s.Initrd}, {"-bios", s.Firmware}} {
		if pair[1] != "" {
			args = append(args, pair[0], pair[1])
		}
	}
	if s.RTC != "" {
		args = append(args, "-rtc", "base="+s.RTC)
	}
	if s.SMBIOSSerial != "" {
		args = append(args, "-smbios", "type=1,serial="+s.SMBIOSSerial)
	}
	for i, d := range s.Disks {
		args = append(args, d.args(i)...)
	}
	return append(args, s.Extra...)
}

func or(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func (d Disk) args(i int) []string {
	format := d.Format
	if format == "" {
		format = "raw"
	}
	file := fmt.Sprintf("file%d", i)
	device := fmt.Sprintf("virtio-blk-pci,drive=disk%d", i)
	if d.Serial != "" {
		device += ",serial=" + d.Serial
	}
	var args []string
	if d.LogFile == "" {
		drive := fmt.Sprintf("file=%s,format=%s,if=none,id=disk%d,snapshot=%s,readonly=%s", comma(d.File), format, i, onOff(d.Snapshot), onOff(d.ReadOnly))
		if d.Scratch {
			drive += ",cache=unsafe"
		}
		args = []string{"-drive", drive}
	} else {
		args = []string{
			"-blockdev", fmt.Sprintf("driver=file,filename=%s,node-name=%s", comma(d.File), file),
			"-blockdev", fmt.Sprintf("driver=%s,file=%s,node-name=format%d", format, file, i),
			"-blockdev", fmt.Sprintf("driver=file,filename=%s,node-name=log%d", comma(d.LogFile), i),
			"-blockdev", fmt.Sprintf("driver=blklogwrites,file=format%d,log=log%d,node-name=disk%d", i, i, i),
		}
	}
	return append(args, "-device", device)
}

// comma doubles commas, as QEMU wants them in its options.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }
