package windows

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// boardFacts are the identifying fields of the firmware's table.
type boardFacts struct {
	uuid, productSerial, boardSerial string
}

// rawHeaderLen is the header that GetSystemFirmwareTable puts before the
// structures (RawSMBIOSData): versions and length.
const rawHeaderLen = 8

// parseSMBIOS reads the structures of types 1 (system) and 2 (board); each has
// a length, a formatted part and strings that end with an empty one (DMTF
// DSP0134). Damage ends the reading; what was read before stands.
func parseSMBIOS(raw []byte) boardFacts {
	var f boardFacts
	if len(raw) < rawHeaderLen {
		return f
	}
	for b := raw[rawHeaderLen:]; len(b) >= 4; {
		size := int(b[1])
		if size < 4 || size > len(b) {
			return f
		}
		end := bytes.Index(b[size:], []byte{0, 0})
		if end < 0 {
			return f
		}
		body, list := b[:size], strings.Split(string(b[size:size+end]), "\x00")
		switch {
		case b[0] == 1 && size >= 0x19:
			f.productSerial = smbiosString(list, body[7])
			f.uuid = hex.EncodeToString(body[8:24])
		case b[0] == 2 && size >= 8 && f.boardSerial == "":
			f.boardSerial = smbiosString(list, body[7])
		case b[0] == 127:
			return f
		}
		b = b[size+end+2:]
	}
	return f
}

func smbiosString(list []string, number byte) string {
	if number == 0 || int(number) > len(list) {
		return ""
	}
	return list[number-1]
}

// fact is "name=digest", empty for a value that proves nothing.
func fact(name, value string) string {
	value = strings.ToLower(strings.TrimSpace(value))
	switch value {
	case "none", "unknown", "default string", "not specified", "not applicable", "system serial number",
		"base board serial number", "to be filled by o.e.m.", "0123456789", "123456789":
		return ""
	}
	if strings.Trim(value, "0-:. ") == "" || strings.Trim(value, "f-:. ") == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("postern fingerprint 1\x00" + name + "\x00" + value))
	return name + "=" + hex.EncodeToString(sum[:16])
}
