package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Words in the names of files that were set aside, and how many are kept.
const (
	asideIdentity     = "damaged"
	asideCache        = "corrupt"
	asideIdentityKept = 4
	asideCacheKept    = 1
)

// setAside renames what stands at path, bytes unchanged, to
// path.damaged-TIME (the cache: corrupt). It is no error if nothing is there.
// Something that is not a regular file is refused and stays.
func (d *DB) setAside() error {
	if missing(d.path) {
		return nil
	}
	if err := notRegular(d.path); err != nil {
		return err
	}
	word, kept := asideIdentity, asideIdentityKept
	if d.expendable {
		word, kept = asideCache, asideCacheKept
	}
	prefix := d.path + "." + word + "-"
	target := prefix + d.o.Now().UTC().Format("20060102T150405Z")
	for i := 2; !missing(target); i++ {
		target = fmt.Sprintf("%s%s-%d", prefix, d.o.Now().UTC().Format("20060102T150405Z"), i)
	}
	if err := os.Rename(d.path, target); err != nil {
		return err
	}
	d.o.Log.Warn("database set aside", "event", "store-damaged", "path", d.path, "kept", target)
	thinOut(d, prefix, target, kept)
	return syncDir(filepath.Dir(d.path))
}

// thinOut removes the oldest files that were set aside, never the newest.
func thinOut(d *DB, prefix, newest string, kept int) {
	all := asides(filepath.Dir(d.path), filepath.Base(prefix))
	all = slices.DeleteFunc(all, func(p string) bool { return p == newest })
	for len(all) >= kept {
		if err := discard(all[0]); err != nil {
			d.o.Log.Warn("old copy could not be removed", "path", all[0], "error", err)
			return
		}
		all = all[1:]
	}
}

// asides lists the files in dir whose names begin with prefix, oldest name first.
func asides(dir, prefix string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(found)
	return found
}
