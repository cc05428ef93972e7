//go:build windows

package windows

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// timeIsAdjusted reports whether a time service steers the clock: while none
// does, periodic adjustment is off (GetSystemTimeAdjustment).
func timeIsAdjusted() bool {
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("GetSystemTimeAdjustment")
	if call.Find() != nil {
		return false
	}
	var adjustment, increment, disabled uint32
	ok, _, _ := call.Call(uintptr(unsafe.Pointer(&adjustment)), uintptr(unsafe.Pointer(&increment)), uintptr(unsafe.Pointer(&disabled)))
	return ok != 0 && disabled == 0
}

// readBootID is the number of this boot as the system counts them; empty where
// it does not, and then nothing can be proven across a restart of the agent.
func readBootID() string {
	n := registryNumber(`SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters`, "BootId")
	if n == 0 {
		return ""
	}
	return "boot-" + strconv.FormatUint(n, 10)
}

func registryNumber(path, name string) uint64 {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE)
	if err != nil {
		return 0
	}
	defer k.Close() //nolint:errcheck // read only
	n, _, err := k.GetIntegerValue(name)
	if err != nil {
		return 0
	}
	return n
}

func registryText(path, name string) string {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return ""
	}
	defer k.Close() //nolint:errcheck // read only
	s, _, err := k.GetStringValue(name)
	if err != nil {
		return ""
	}
	return s
}

// Fingerprint returns facts of the board, each "name=digest", sorted: dmi-uuid,
// dmi-product, dmi-board from the firmware, mac, machine-id.
func (h *Host) Fingerprint() []string {
	board := parseSMBIOS(firmwareTable())
	var facts []string
	for _, f := range []string{
		fact("dmi-uuid", board.uuid),
		fact("dmi-product", board.productSerial),
		fact("dmi-board", board.boardSerial),
		fact("mac", lowestMAC()),
		fact("machine-id", registryText(`SOFTWARE\Microsoft\Cryptography`, "MachineGuid")),
	} {
		if f != "" {
			facts = append(facts, f)
		}
	}
	slices.Sort(facts)
	return facts
}

// Kernel is the version of Windows, "10.0.26100".
func (h *Host) Kernel() string {
	v := windows.RtlGetVersion()
	return fmt.Sprintf("%d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber)
}

// firmwareTable is the raw SMBIOS table; nil if it cannot be had.
func firmwareTable() []byte {
	const provider = 'R'<<24 | 'S'<<16 | 'M'<<8 | 'B'
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("GetSystemFirmwareTable")
	if call.Find() != nil {
		return nil
	}
	size, _, _ := call.Call(provider, 0, 0, 0)
	if size == 0 || size > 1<<20 {
		return nil
	}
	b := make([]byte, size)
	n, _, _ := call.Call(provider, 0, uintptr(unsafe.Pointer(&b[0])), size)
	if n > size {
		return nil
	}
	return b[:n]
}

// lowestMAC is the lowest burnt-in address of an Ethernet device.
func lowestMAC() string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	var lowest net.HardwareAddr
	for _, i := range interfaces {
		const local = 2 // made up, as for virtual switches
		if len(i.HardwareAddr) != 6 || i.HardwareAddr[0]&local != 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		if lowest == nil || bytes.Compare(i.HardwareAddr, lowest) < 0 {
			lowest = i.HardwareAddr
		}
	}
	return lowest.String()
}
