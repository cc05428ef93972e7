package site

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
)

// validName is what machines, groups and identities may be called: it goes
// into resource ids and common names.
func validName(name string) bool {
	const inside = ".-_"
	if name == "" || len(name) > 64 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		plain := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !plain && (i == 0 || i == len(name)-1 || strings.IndexByte(inside, c) < 0) {
			return false
		}
	}
	return true
}

// validGUID reports whether s is a GUID in lower case.
func validGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if c := s[i]; dash != (c == '-') || !dash && !isHex(c) {
			return false
		}
	}
	return true
}

// isHex reports whether c is a hexadecimal digit in lower case.
func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

const defaultGroup = "default"

// newGUID returns a random version 4 UUID, lower case.
func newGUID() string {
	var b [16]byte
	fill(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// newID returns 128 random bits in hex: token ids.
func newID() string {
	var b [16]byte
	fill(b[:])
	return hex.EncodeToString(b[:])
}

// newSerial returns a random positive serial number of at most 127 bits.
func newSerial() *big.Int {
	var b [16]byte
	fill(b[:])
	b[0] &= 0x7f
	n := new(big.Int).SetBytes(b[:])
	return n.SetBit(n, 64, 1) // never zero
}

// fill reads random bytes; crypto/rand.Read never fails (Go 1.24).
func fill(b []byte) { _, _ = rand.Read(b) }

func checkName(kind, name string) error {
	if !validName(name) {
		return fmt.Errorf("%s %q: %w: 1 to 64 letters, digits, '.', '_' or '-', a letter or digit at both ends", kind, cut(name, 64), ErrInvalid)
	}
	return nil
}

func groupOr(group string) (string, error) {
	if group == "" {
		return defaultGroup, nil
	}
	return group, checkName("group", group)
}

func machineResource(tenant, group, name string) string {
	return "/subscriptions/" + tenant + "/resourceGroups/" + group + "/providers/Microsoft.HybridCompute/machines/" + name
}

func identityResource(tenant, group, name string) string {
	return "/subscriptions/" + tenant + "/resourceGroups/" + group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
}

// The names in a certificate: the first is what tls_client_auth matches, the
// second says which machine's copy of a shared identity it is.
const (
	identityURN = "urn:postern:identity:"
	machineURN  = "urn:postern:machine:"
)

func sansFor(objectID, vmID string) []string {
	return []string{identityURN + objectID, machineURN + vmID}
}

// cut makes a stranger's text fit for a log line or an answer: printable
// ASCII, at most n bytes.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}

// equalFold compares ids, which are ASCII, without case.
func equalFold(a, b string) bool { return strings.EqualFold(a, b) }
