package config

import (
	"net/netip"
	"strings"
)

// metadata is the address that virtual machines have for their metadata.
var metadata = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// address accepts one literal address and port. A wildcard would let the
// network ask (firmware-notes/attack-surface.md, T7), a name could come to mean another address.
func address(s string) (netip.AddrPort, *problem) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, &problem{quote(s) + " is not an address with a port", `write it as "127.0.0.1:40342" or "[::1]:40342"`}
	}
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	switch ip := a.Addr(); {
	case ip.IsUnspecified():
		return netip.AddrPort{}, &problem{quote(s) + " listens on every interface", "name one address"}
	case a.Port() == 0:
		return netip.AddrPort{}, &problem{quote(s) + " leaves the port to chance", "name one port"}
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.AddrPort{}, &problem{quote(s) + " is not the address of one machine", "name one address"}
	}
	return a, nil
}

// loopback accepts loopback addresses only.
func loopback(s string) (string, *problem) {
	a, p := address(s)
	if p != nil {
		return "", p
	}
	if !a.Addr().IsLoopback() {
		return "", &problem{quote(s) + " can be reached from the network", "use 127.0.0.1 and [::1]; containers get a [[workload]]"}
	}
	return a.String(), nil
}

// metadataAddress accepts loopback addresses and 169.254.169.254, which the
// agent binds to the loopback device.
func metadataAddress(s string) (string, *problem) {
	a, p := address(s)
	if p != nil {
		return "", p
	}
	if !a.Addr().IsLoopback() && a.Addr() != metadata {
		return "", &problem{quote(s) + " can be reached from the network", "use 169.254.169.254:80 or a loopback address"}
	}
	return a.String(), nil
}

// bridge accepts loopback addresses and those that no router carries further:
// private ones and link-local ones, as container bridges have.
func bridge(s string) (string, *problem) {
	a, p := address(s)
	if p != nil {
		return "", p
	}
	ip := a.Addr()
	if ip == metadata {
		return "", &problem{quote(s) + " is the metadata address", "use [imds] for it"}
	}
	if !ip.IsLoopback() && !ip.IsPrivate() && !ip.IsLinkLocalUnicast() {
		return "", &problem{quote(s) + " is a public address", "use a loopback address or that of a bridge, such as 172.17.0.1"}
	}
	return a.String(), nil
}

// hostName accepts a DNS name, which is kept in lower case. No pattern: an
// exact list is what stops DNS rebinding (firmware-notes/wire.md).
func hostName(s string) (string, *problem) {
	bad := &problem{quote(s) + " is not a host name", "write the bare name, without scheme, port or star"}
	if len(s) > 253 {
		return "", bad
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return s, nil
	}
	name := strings.ToLower(s)
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' {
			return "", bad
		}
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return "", bad
			}
		}
	}
	return name, nil
}
