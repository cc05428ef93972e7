//go:build linux

// Command liar is a PID 1 that reports the success of another job.
package main

import (
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	for _, m := range []string{"proc", "sysfs", "devtmpfs"} {
		dir := map[string]string{"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev"}[m]
		_ = os.MkdirAll(dir, 0o755)
		_ = syscall.Mount(m, dir, m, 0, "")
	}
	list, _ := os.ReadFile("/modules")
	none := []byte{0}
	for path := range strings.FieldsSeq(string(list)) {
		image, _ := os.ReadFile(path)
		_, _, _ = syscall.Syscall(syscall.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&image[0])), uintptr(len(image)), uintptr(unsafe.Pointer(&none[0])))
	}
	for range time.Tick(10 * time.Millisecond) {
		f, err := os.OpenFile("/dev/vport0p1", os.O_RDWR, 0)
		if err != nil {
			if f, err = os.OpenFile("/dev/vport1p1", os.O_RDWR, 0); err != nil {
				continue
			}
		}
		_, _ = f.WriteString(`{"k":"hello","v":1,"job":"another"}` + "\n" + `{"k":"exit"}` + "\n")
		_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	}
}
