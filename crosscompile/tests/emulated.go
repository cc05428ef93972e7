package main

import "time"

// emulators run programs for other processors (Debian's qemu-user-static, 379 MB installed).
func emulators() []need {
	return []need{{"qemu-arm-static", "qemu-user-static"}, {"qemu-riscv64-static", "qemu-user-static"}, {"qemu-aarch64-static", "qemu-user-static"}, {"ip", "iproute2"}}
}

// foreignBinaries is the package of the step emulated; among the rooms all of it
// would be skipped.
const foreignBinaries = "postern/crosscompile/emulated"

// emulated starts foreign binaries; the full form runs the security suites, too.
func emulated(form string, limit time.Duration) step {
	return step{
		name: "foreign binaries", dir: "crosscompile/emulated", env: []string{"POSTERN_EMULATED=" + form},
		test: []string{"-v", "-timeout", (limit - time.Minute).String(), "./..."}, limit: limit,
	}
}

func emulatedTier() tier {
	return tier{
		name: "emulated", what: "armv7, riscv64, arm64 and armv6 binaries and the security suites under qemu-user (at most 90 min)",
		limit: 90 * time.Minute, packages: emulators(), steps: []step{emulated("full", 86*time.Minute)},
	}
}
