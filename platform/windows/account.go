//go:build windows

package windows

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"postern/platform"
)

// Peers here are "sid:S-1-5-…".
const sidPrefix = "sid:"

func sidPeer(sid string) platform.Peer { return platform.Peer(sidPrefix + sid) }

func sidOf(p platform.Peer) (*windows.SID, bool) {
	text, ok := strings.CutPrefix(string(p), sidPrefix)
	if !ok {
		return nil, false
	}
	sid, err := windows.StringToSid(text)
	return sid, err == nil
}

func ownSID() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", err
	}
	return u.User.Sid.String(), nil
}

// Self is our own account.
func (h *Host) Self() platform.Peer { return sidPeer(h.self) }

// Account resolves an account name or a SID; Unknown if there is none.
func (h *Host) Account(user string) platform.Peer {
	if sid, err := windows.StringToSid(user); err == nil && strings.HasPrefix(user, "S-1-") {
		return sidPeer(sid.String())
	}
	sid, _, kind, err := windows.LookupSID("", user)
	if err != nil || kind != windows.SidTypeUser && kind != windows.SidTypeWellKnownGroup {
		return platform.Unknown
	}
	return sidPeer(sid.String())
}

// UserName is DOMAIN\name; empty if unknown.
func (h *Host) UserName(p platform.Peer) string {
	sid, ok := sidOf(p)
	if !ok {
		return ""
	}
	name, domain, _, err := sid.LookupAccount("")
	if err != nil {
		return ""
	}
	if domain == "" {
		return name
	}
	return domain + `\` + name
}

// Member reports whether p is listed in the local group; groups inside of it
// are not searched.
func (h *Host) Member(p platform.Peer, group string) bool {
	sid, ok := sidOf(p)
	return ok && inLocalGroup(sid, group)
}

// Administrator reports whether p is SYSTEM, the service, our own account, or
// listed in the local group of administrators.
func (h *Host) Administrator(p platform.Peer) bool {
	switch p {
	case sidPeer(sidSystem), sidPeer(h.self), sidPeer(serviceSID(Service)):
		return true
	}
	sid, ok := sidOf(p)
	if !ok {
		return false
	}
	admins, err := windows.StringToSid(sidAdministrators)
	if err != nil {
		return false
	}
	group, _, _, err := admins.LookupAccount("")
	return err == nil && inLocalGroup(sid, group)
}

// maxPreferredLength asks netapi32 for everything at once.
const maxPreferredLength = 0xffffffff

// inLocalGroup asks NetLocalGroupGetMembers for the SIDs of a group.
func inLocalGroup(sid *windows.SID, group string) bool {
	name, err := windows.UTF16PtrFromString(group)
	if err != nil {
		return false
	}
	call := windows.NewLazySystemDLL("netapi32.dll").NewProc("NetLocalGroupGetMembers")
	if call.Find() != nil {
		return false
	}
	var buf *byte
	var n, total uint32
	status, _, _ := call.Call(0, uintptr(unsafe.Pointer(name)), 0, uintptr(unsafe.Pointer(&buf)), maxPreferredLength,
		uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&total)), 0)
	if status != 0 || buf == nil {
		return false
	}
	defer func() { _ = windows.NetApiBufferFree(buf) }() // nothing to be done
	for _, member := range unsafe.Slice((**windows.SID)(unsafe.Pointer(buf)), n) {
		if member.Equals(sid) {
			return true
		}
	}
	return false
}
