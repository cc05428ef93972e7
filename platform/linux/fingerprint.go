//go:build linux

package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Fingerprint returns facts of the board, "name=digest", sorted. What cannot
// be read is left out, so an unprivileged agent sees fewer than root (DMI
// serials are root's). Facts: board (device tree or cpuinfo serial), emmc,
// dmi-board, dmi-product, dmi-uuid, nvme, mac, machine-id.
func (h *Host) Fingerprint() []string {
	var facts []string
	add := func(name, value string) {
		value = strings.ToLower(strings.Trim(value, " \t\r\n\x00"))
		if placeholder(value) {
			return
		}
		sum := sha256.Sum256([]byte("postern fingerprint 1\x00" + name + "\x00" + value))
		facts = append(facts, name+"="+hex.EncodeToString(sum[:16]))
	}
	add("board", h.boardSerial())
	add("emmc", h.blockFact("mmcblk*", "device/cid", func(dir string) bool { return h.fact(dir, "device/type") == "MMC" }))
	add("nvme", h.blockFact("nvme*", "device/serial", nil))
	add("dmi-board", h.fact("sys/class/dmi/id/board_serial"))
	add("dmi-product", h.fact("sys/class/dmi/id/product_serial"))
	add("dmi-uuid", h.fact("sys/class/dmi/id/product_uuid"))
	add("mac", h.boardMAC())
	add("machine-id", h.fact("etc/machine-id"))
	slices.Sort(facts)
	return facts
}

// placeholder recognises what vendors leave in a field that they did not fill:
// equal on every board, it would prove nothing and hide a copy.
func placeholder(value string) bool {
	switch value {
	case "none", "uninitialized", "unknown", "default string", "not specified", "not applicable",
		"system serial number", "base board serial number", "to be filled by o.e.m.", "0123456789", "123456789":
		return true
	}
	return strings.Trim(value, "0-:. ") == "" || strings.Trim(value, "f-:. ") == ""
}

// fact reads a small file below the root of facts; empty if it cannot be read.
func (h *Host) fact(path ...string) string {
	return strings.Trim(readLimited(filepath.Join(append([]string{h.facts}, path...)...), 4096), " \t\r\n\x00")
}

// Kernel is the kernel's release, as uname -r prints it.
func (h *Host) Kernel() string { return h.fact("proc/sys/kernel/osrelease") }

// boardSerial is the serial in the device tree, else the line that Raspberry
// Pi kernels write into cpuinfo.
func (h *Host) boardSerial() string {
	for _, path := range []string{"proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number"} {
		if s := h.fact(path); s != "" {
			return s
		}
	}
	for line := range strings.Lines(readLimited(filepath.Join(h.facts, "proc/cpuinfo"), 1<<20)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "Serial" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// blockFact is the value of one file of the first block device, in the order
// of names, that is wanted. SD cards are not: they are what gets copied.
func (h *Host) blockFact(pattern, file string, wanted func(dir string) bool) string {
	for _, dir := range h.glob("sys/block", pattern) {
		if wanted != nil && !wanted(dir) {
			continue
		}
		if value := h.fact(dir, file); value != "" {
			return value
		}
	}
	return ""
}

// glob returns the sorted paths below facts/dir that match pattern.
func (h *Host) glob(dir, pattern string) []string {
	entries, err := os.ReadDir(filepath.Join(h.facts, dir))
	if err != nil {
		return nil
	}
	var paths []string
	for _, e := range entries {
		if ok, err := filepath.Match(pattern, e.Name()); err == nil && ok {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// boardMAC is the lowest burnt-in address of a real network device, of one
// that is not on USB if there is any: a stick that comes and goes is no part
// of the board.
func (h *Host) boardMAC() string {
	var onBoard, onUSB []string
	for _, dir := range h.glob("sys/class/net", "*") {
		device, err := os.Readlink(filepath.Join(h.facts, dir, "device"))
		if err != nil || h.fact(dir, "addr_assign_type") != "0" {
			continue // virtual, or an address made up at boot
		}
		mac := h.fact(dir, "address")
		switch {
		case placeholder(mac):
		case strings.Contains(device, "usb") || strings.Contains(h.subsystem(dir), "usb"):
			onUSB = append(onUSB, mac)
		default:
			onBoard = append(onBoard, mac)
		}
	}
	for _, macs := range [][]string{onBoard, onUSB} {
		if len(macs) > 0 {
			return slices.Min(macs)
		}
	}
	return ""
}

// subsystem names the bus of a network device: "../../../bus/usb".
func (h *Host) subsystem(dir string) string {
	link, err := os.Readlink(filepath.Join(h.facts, dir, "device/subsystem"))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}
