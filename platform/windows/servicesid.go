package windows

import (
	"crypto/sha1" //nolint:gosec // the system's own formula; nothing rests on it
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// serviceSID is the SID of NT SERVICE\name, which the system derives from the
// name alone: S-1-5-80 and the SHA-1 of the upper-case UTF-16 name.
func serviceSID(name string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(strings.ToUpper(name))) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	sum := sha1.Sum(b) //nolint:gosec // as above
	sid := "S-1-5-80"
	for i := 0; i < len(sum); i += 4 {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(sum[i:]))
	}
	return sid
}
