package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"postern/crosscompile"
)

// documents go into every archive as they lie in the project's root.
func documents() []string { return []string{"LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"} }

// initFolder holds what the init systems of Linux read, by init system.
const initFolder = "platform/linux/init"

func readDocuments(root string) ([]file, error) {
	var list []file
	for _, name := range documents() {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		list = append(list, file{name: name, content: content})
	}
	return list, nil
}

// readInit takes what lies in the init folder as it is, into init/. Scripts
// stay programs.
func readInit(root string) ([]file, error) {
	from := filepath.Join(root, filepath.FromSlash(initFolder))
	var list []file
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) == ".go" {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", name)
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		list = append(list, file{"init/" + filepath.ToSlash(rel), content, bytes.HasPrefix(content, []byte("#!"))})
		return nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s is empty", from)
	}
	return list, err
}

// completions asks a binary for this machine; the scripts ask Postern itself
// when they run and are the same everywhere.
func completions(ctx context.Context, root, out string) ([]file, error) {
	here := crosscompile.Target{OS: runtime.GOOS, Arch: runtime.GOARCH}
	binary, err := crosscompile.Build(ctx, root, out, here, "", "-buildvcs=false")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(binary) }()
	var list []file
	for shell, name := range map[string]string{"bash": "postern.bash", "zsh": "_postern", "fish": "postern.fish", "powershell": "postern.ps1"} {
		text, err := exec.CommandContext(ctx, binary, "completion", shell).Output() //nolint:gosec // what we just built
		if err != nil {
			return nil, fmt.Errorf("completion %s: %w", shell, err)
		}
		list = append(list, file{name: "completions/" + name, content: text})
	}
	return list, nil
}

// members are the files of one archive.
func (r *release) members(t crosscompile.Target, binary string, m *material, bill []byte) ([]file, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	name := "postern"
	if t.OS == "windows" {
		name += ".exe"
	}
	list := append(slices.Clone(r.common),
		file{name, content, true},
		file{name: "THIRD-PARTY-LICENCES.txt", content: []byte(m.thirdParty())},
		file{name: billName, content: bill})
	if t.OS == "linux" {
		return append(list, r.init...), nil
	}
	return list, nil
}

// archiveName is postern_VERSION_OS_ARCH with its ending.
func archiveName(version string, t crosscompile.Target) string {
	ending := ".tar.gz"
	if t.OS == "windows" {
		ending = ".zip"
	}
	return "postern_" + version + "_" + strings.Replace(t.String(), "-", "_", 1) + ending
}
