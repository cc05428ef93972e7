//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"postern/crosscompile/qemu/port"
)

// patience is how long a device may take to appear.
const patience = 5 * time.Second

// await asks again every 10 ms until ready says yes.
func await(limit time.Duration, ready func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !ready(); <-tick.C {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// openPort finds the port by its name in /sys and opens it; only one program
// can have it open.
func openPort() (*port.Writer, *os.File, error) {
	var file *os.File
	err := errors.New("no virtio-serial port")
	await(patience, func() bool {
		found, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, path := range found {
			if name, _ := os.ReadFile(path); strings.TrimSpace(string(name)) == port.Name {
				file, err = os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
				return err == nil
			}
		}
		return false
	})
	if err != nil {
		return nil, nil, err
	}
	return port.NewWriter(file), file, nil
}

// jobID is the job's id from the kernel's command line: a story has no /job.json.
func jobID() string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if id, ok := strings.CutPrefix(word, "postern.job="); ok {
			return id
		}
	}
	return ""
}

func hello(w *port.Writer, job, mode string) error {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return w.Say(port.Message{
		Kind: port.Hello, V: port.Version, Job: job, Mode: mode, Kernel: strings.TrimSpace(string(release)),
		Arch: runtime.GOARCH, Page: os.Getpagesize(), MemKB: memory("MemTotal"), Up: uptime(),
	})
}

// memory is a value of /proc/meminfo in kB, 0 if it is not there.
func memory(name string) int {
	content, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name+":" {
			n, _ := strconv.Atoi(fields[1])
			return n
		}
	}
	return 0
}

// uptime is the seconds since the kernel started.
func uptime() float64 {
	content, _ := os.ReadFile("/proc/uptime")
	word, _, _ := strings.Cut(string(content), " ")
	up, _ := strconv.ParseFloat(word, 64)
	return up
}
