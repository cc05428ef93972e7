package slots

import "fmt"

// EntryName is the file name of a slot's boot entry (Boot Loader Specification,
// type 1). One on trial carries its attempts in the name, which the boot loader
// counts down before each start.
func EntryName(slot string, trial bool) string {
	if trial {
		return fmt.Sprintf("postern-%s+%d.conf", slot, Tries)
	}
	return "postern-" + slot + ".conf"
}

// Entry is the content of a slot's boot entry. The one with the highest
// version is booted, unless its attempts are used up.
func Entry(slot string, version int) string {
	return fmt.Sprintf("title Postern demo, slot %[1]s\nsort-key postern\nversion %[2]d\nlinux /%[1]s/vmlinuz\ninitrd /%[1]s/initrd\noptions %[3]s\n",
		slot, version, Options(slot))
}

// Options is the kernel's command line of a slot.
func Options(slot string) string { return "console=ttyAMA0 panic=5 quiet slot=" + slot }
