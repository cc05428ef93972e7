package windows

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ControlPipe is where the agent listens for the command line.
const ControlPipe = `\\.\pipe\postern-control`

// AdminPipe is where the site authority of a directory listens for its
// administration: never the agent's pipe, and another one for each directory,
// so that a verb reaches the authority that was meant. Paths that differ by
// case alone are one directory here.
func AdminPipe(dir string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(dir)))
	return `\\.\pipe\postern-authority-` + hex.EncodeToString(sum[:8])
}
