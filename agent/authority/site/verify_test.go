package site

import (
	"encoding/json"
	"fmt"
)

// verifyAudit checks that each record carries the digest of the one before,
// and returns how many were checked. first is the digest that the first line
// must carry, empty if it is not known. It shows tampering up to the newest
// record that somebody else holds a copy of, and no further.
func verifyAudit(lines []json.RawMessage, first string) (int, error) {
	for i, line := range lines {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return i, fmt.Errorf("audit record %d of %d: %w", i+1, len(lines), err)
		}
		if (i > 0 || first != "") && e.Prev != first {
			return i, fmt.Errorf("audit record %d does not follow the one before it", e.Seq)
		}
		first = lineDigest(line)
	}
	return len(lines), nil
}
