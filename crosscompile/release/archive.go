package main

import (
	"archive/tar"
	"archive/zip"
	"cmp"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"time"
)

// file is one member of an archive. Its mode is 0755 or 0644.
type file struct {
	name    string
	content []byte
	program bool
}

func (f file) mode() int64 {
	if f.program {
		return 0o755
	}
	return 0o644
}

// writeArchive packs files into a .tar.gz, or a .zip where name ends so. The
// same files give the same bytes: they are sorted, belong to root, and all
// bear the one time.
func writeArchive(name string, files []file, at time.Time) (err error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // for everybody
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if path.Ext(name) == ".zip" {
		return writeZip(out, files, at)
	}
	return writeTar(out, files, at)
}

func writeTar(out io.Writer, files []file, at time.Time) error {
	packed, err := gzip.NewWriterLevel(out, gzip.BestCompression) // neither name nor time in its header
	if err != nil {
		return err
	}
	w := tar.NewWriter(packed)
	made := map[string]bool{}
	for _, f := range files {
		if dir := path.Dir(f.name); dir != "." && !made[dir] {
			made[dir] = true
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at, Format: tar.FormatUSTAR}); err != nil {
				return err
			}
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode(), Size: int64(len(f.content)), ModTime: at, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := w.Write(f.content); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), packed.Close())
}

func writeZip(out io.Writer, files []file, at time.Time) error {
	w := zip.NewWriter(out)
	for _, f := range files {
		h := zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: at.UTC()}
		h.SetMode(os.FileMode(f.mode()))
		member, err := w.CreateHeader(&h)
		if err != nil {
			return err
		}
		if _, err := member.Write(f.content); err != nil {
			return err
		}
	}
	return w.Close()
}
