//go:build linux

package main

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// outputs are the flags of a test binary that name a file to write.
func outputs() map[string]bool {
	return map[string]bool{
		"-test.coverprofile": true, "-test.cpuprofile": true, "-test.memprofile": true,
		"-test.blockprofile": true, "-test.mutexprofile": true, "-test.trace": true,
	}
}

// redirect lets the test write its files to the guest's /job/out, notes where they
// belong, and returns the new arguments and the value of -test.timeout.
func (p *plan) redirect(args []string) ([]string, time.Duration) {
	timeout, dir := 10*time.Minute, ""
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "-test.outputdir="); ok {
			dir = value
		}
	}
	var list []string
	for i, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch {
		case name == "-test.outputdir" || name == "-test.testlogfile":
			// without the log of what a test read, go test does not cache its result: it
			// could not see that the kernel changed
		case name == "-test.gocoverdir":
			p.back["/job/out/cover/"] = value
			list = append(list, "-test.gocoverdir=/job/out/cover")
		case outputs()[name]:
			guest := "/job/out/" + strconv.Itoa(i) + "-" + filepath.Base(value)
			if !filepath.IsAbs(value) {
				value = filepath.Join(dir, value)
			}
			p.back[guest] = value
			list = append(list, name+"="+guest)
		default:
			if d, err := time.ParseDuration(value); name == "-test.timeout" && err == nil && d > 0 {
				timeout = d
			}
			list = append(list, arg)
		}
	}
	return list, timeout
}
