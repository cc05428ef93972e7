package main

import (
	"context"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func deviceChecks() []check {
	return []check{
		{"watchdog", "device", warning, checkWatchdog},
		{"inotify", "device", warning, checkInotify},
		{"entropy", "device", warning, checkEntropy},
		{"sandbox", "device", warning, checkSandbox},
	}
}

func imdsChecks() []check {
	return []check{{"imds-conflict", "endpoint", failed, checkIMDSConflict}}
}

func groupOf(info fs.FileInfo) (int, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Gid), true
}

// checkWatchdog asks whether anybody restarts an agent that hangs.
func checkWatchdog(_ context.Context, f *facts) finding {
	switch {
	case !f.running:
		return skip(startAgent, "no agent runs")
	case f.status.Watchdog == 0:
		return warn("systemctl show postern -p WatchdogUSec   # set WatchdogSec=60, or what your init system has", "nobody would notice if the agent hung")
	}
	return ok("the init system wants a sign of life every %d s", f.status.Watchdog)
}

// checkInotify asks how the agent hears of files that vanish.
func checkInotify(_ context.Context, f *facts) finding {
	switch {
	case !f.running:
		return skip(startAgent, "no agent runs")
	case len(f.arc()) == 0:
		return skip("postern config print", "the Arc flavour is off")
	case f.status.Endpoint.Watch != "inotify":
		return warn("sudo sysctl fs.inotify.max_user_instances=256", "the token directory is looked at by the clock: %s", f.status.Endpoint.Watch)
	}
	return ok("the token directory is watched")
}

// checkEntropy asks whether keys can be born: the kernel says 256 once its
// generator was seeded.
func checkEntropy(context.Context, *facts) finding {
	raw, err := os.ReadFile("/proc/sys/kernel/random/entropy_avail")
	if err != nil {
		return skip("ls /proc/sys/kernel/random", "%v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || n < 128 {
		return warn("sudo rngd   # or a kernel with CONFIG_RANDOM_TRUST_CPU", "the kernel has %s bits of entropy; keys wait for them", strings.TrimSpace(string(raw)))
	}
	return ok("%d bits", n)
}

func checkSandbox(_ context.Context, f *facts) finding {
	switch {
	case !f.running:
		return skip(startAgent, "no agent runs")
	case f.status.Sandbox == "" || f.status.Sandbox == "none":
		return warn("systemd-analyze security postern   # or a kernel with landlock", "nothing confines the agent")
	}
	return ok("%s", f.status.Sandbox)
}

// checkIMDSConflict looks for a cloud's own metadata service where we want to
// answer for it. It looks at the machine's own description and sends nothing.
func checkIMDSConflict(_ context.Context, f *facts) finding {
	if !f.cfg.IMDS.Enabled || !slices.ContainsFunc(f.cfg.IMDS.Listen, func(a string) bool { return strings.HasPrefix(a, "169.254.169.254:") }) {
		return ok("we do not answer on 169.254.169.254")
	}
	for _, cloud := range []struct{ file, holds, name string }{
		{"chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "an Azure virtual machine"},
		{"sys_vendor", "Amazon EC2", "an EC2 instance"},
		{"product_name", "Google Compute Engine", "a Google Compute Engine instance"},
		{"chassis_asset_tag", "OpenStack", "an OpenStack instance"},
	} {
		raw, err := os.ReadFile("/sys/class/dmi/id/" + cloud.file)
		if err == nil && strings.Contains(string(raw), cloud.holds) {
			return bad("postern config print   # set imds.enabled = false, or a loopback address", "this is %s, which has a metadata service of its own on 169.254.169.254", cloud.name)
		}
	}
	return ok("this machine has no metadata service of its own")
}
