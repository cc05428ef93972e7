//go:build linux

// Command guest is PID 1 of every test guest and the program that its init
// starts to play a story. It is made of the standard library alone, so that
// it stands in an initramfs as one file.
//
//	guest            as PID 1: mounts, modules, loopback, then the job of /job.json
//	guest story ...  started by the init of a test root
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"postern/crosscompile/qemu/port"
)

func main() {
	if os.Getpid() != 1 || len(os.Args) > 1 { // a program may be PID 1 of a root
		os.Exit(program(os.Args[1:]))
	}
	if err := first(); err != nil {
		complain(err) // no exit line: the host takes that as a failure
	}
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// program is what guest does when it is not PID 1.
func program(args []string) int {
	if len(args) > 0 {
		if play, known := programs()[args[0]]; known {
			return play(args[1:])
		}
	}
	fmt.Fprintln(os.Stderr, "guest: PID 1 of a test guest, or: guest", strings.Join(names(), "|"))
	return 2
}

// first is the life of PID 1.
func first() error {
	if err := mountBasics(); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	if err := loopback(); err != nil {
		complain(err)
	}
	var job port.Job
	content, err := os.ReadFile("/job.json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, &job); err != nil {
		return err
	}
	w, file, err := openPort()
	if err != nil {
		return err
	}
	if err := hello(w, job.ID, job.Mode); err != nil {
		return err
	}
	if job.Mode == "job" && job.Root != nil {
		if err := jobRoot(*job.Root); err != nil {
			return err
		}
	}
	for _, m := range job.Mounts {
		if err := mount(m, m.Dir); err != nil {
			return err
		}
	}
	switch job.Mode {
	case "job":
		return runJob(w, job)
	case "switch":
		_ = file.Close() // the story opens it again
		return switchRoot(job)
	}
	return errors.New("unknown mode " + job.Mode)
}

// complain writes to the console, which is for people.
func complain(err error) { fmt.Fprintln(os.Stderr, "guest:", err) }
