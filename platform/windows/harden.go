//go:build windows

package windows

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"postern/platform"
)

// Policies of SetProcessMitigationPolicy (winnt.h), and their flags.
const (
	policyDynamicCode = 2
	policyImageLoad   = 10

	prohibitDynamicCode = 0x1
	noRemoteImages      = 0x1
	noLowLabelImages    = 0x2
)

// Flags that keep our memory out of crash reports.
const (
	semFailCriticalErrors = 0x1
	semNoGPFaultErrorBox  = 0x2
	werNoHeap             = 0x1
)

// Harden asks the system for less: no code made at run time, no libraries from
// the network or written by lesser processes, no heap in crash reports. Child
// processes stay allowed, since `store verify` is one.
func (h *Host) Harden() (string, error) {
	var done []string
	var errs []error
	step := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			return
		}
		done = append(done, name)
	}
	windows.SetErrorMode(semFailCriticalErrors | semNoGPFaultErrorBox)
	step("core", noHeapInReports())
	step("dynamic-code", mitigate(policyDynamicCode, prohibitDynamicCode))
	step("images", mitigate(policyImageLoad, noRemoteImages|noLowLabelImages))
	return strings.Join(done, " "), errors.Join(errs...)
}

func mitigate(policy uintptr, flags uint32) error {
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("SetProcessMitigationPolicy")
	if err := call.Find(); err != nil {
		return err
	}
	if ok, _, err := call.Call(policy, uintptr(unsafe.Pointer(&flags)), unsafe.Sizeof(flags)); ok == 0 {
		return err
	}
	return nil
}

func noHeapInReports() error {
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("WerSetFlags")
	if err := call.Find(); err != nil {
		return err
	}
	if status, _, _ := call.Call(werNoHeap); status != 0 {
		return fmt.Errorf("WerSetFlags: status %#x", status)
	}
	return nil
}

// Confine reports what the service manager's restricted token does for us; a
// running process cannot narrow its own access to files further.
func (h *Host) Confine(platform.Confinement) (string, error) {
	restricted, err := windows.GetCurrentProcessToken().IsRestricted()
	if err != nil {
		return "none", fmt.Errorf("restricted token: %w", err)
	}
	if !restricted {
		return "none", nil
	}
	return "restricted service", nil
}
