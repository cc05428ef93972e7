// Package initfiles holds the files by which init systems start the agent, as
// they are shipped; firmware-notes/init-systems.md has the recipe of each. It
// only holds them: platform/linux/install decides where they go.
package initfiles

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed systemd openrc sysvinit runit s6 busybox
var files embed.FS

// Binary is the path of the program in the files as they are shipped.
const Binary = "/usr/bin/postern"

// File returns the shipped file name, "systemd/postern.service", for a program
// that lies at binary.
func File(name, binary string) ([]byte, error) {
	content, err := files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("init file: %w", err)
	}
	return []byte(strings.ReplaceAll(string(content), Binary, binary)), nil
}
