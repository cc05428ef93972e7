package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/crosscompile"
)

const (
	billName  = "sbom.cdx.json"
	checksums = "SHA256SUMS"
)

// release is one run: what is built from where, and what all archives share.
type release struct {
	root, out string
	version   string
	commit    string
	time      time.Time
	targets   []crosscompile.Target
	say       io.Writer

	common, init []file
}

// versionForm is a semantic version without the leading v, as packages name it.
var versionForm = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+([.+~-][0-9A-Za-z.+~-]+)?$`)

// make builds, packs and writes everything. The folder out must be empty or
// new: what an earlier run left would not be in the checksums.
func (r *release) make(ctx context.Context) error {
	if !versionForm.MatchString(r.version) {
		return fmt.Errorf("version %q is not of the form 1.2.3 or 1.2.3-rc1", r.version)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil { //nolint:gosec // for everybody
		return err
	}
	if left, err := os.ReadDir(r.out); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty", r.out))
	}
	work, err := os.MkdirTemp("", "postern-release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := r.collect(ctx, work); err != nil {
		return err
	}
	var names []string
	for _, t := range r.targets {
		written, err := r.target(ctx, work, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
		names = append(names, written...)
	}
	return r.sums(names)
}

func (r *release) collect(ctx context.Context, work string) error {
	var err error
	if r.common, err = readDocuments(r.root); err != nil {
		return err
	}
	shells, err := completions(ctx, r.root, work)
	if err != nil {
		return err
	}
	r.common = append(r.common, shells...)
	r.init, err = readInit(r.root)
	return err
}

// target writes the archive and the bill beside it and returns their names.
func (r *release) target(ctx context.Context, work string, t crosscompile.Target) ([]string, error) {
	stamp := crosscompile.Stamp{Version: r.version, Commit: r.commit, Time: r.time}
	binary, err := crosscompile.Build(ctx, r.root, work, t, "", stamp.Extra()...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(binary) }()
	m, err := gather(ctx, r.root, binary, t)
	if err != nil {
		return nil, err
	}
	m.version, m.commit, m.time = r.version, r.commit, r.time
	bill, err := m.bill()
	if err != nil {
		return nil, err
	}
	files, err := r.members(t, binary, m, bill)
	if err != nil {
		return nil, err
	}
	archive := archiveName(r.version, t)
	if err := writeArchive(filepath.Join(r.out, archive), files, r.time); err != nil {
		return nil, err
	}
	sidecar := strings.TrimSuffix(strings.TrimSuffix(archive, ".tar.gz"), ".zip") + "." + billName
	if err := os.WriteFile(filepath.Join(r.out, sidecar), bill, 0o644); err != nil { //nolint:gosec // for everybody
		return nil, err
	}
	_, _ = fmt.Fprintf(r.say, "%s: %d files, %d modules\n", archive, len(files), len(m.modules)-1)
	return []string{archive, sidecar}, nil
}

// sums writes the checksums in the form that sha256sum -c reads.
func (r *release) sums(names []string) error {
	slices.Sort(names)
	var lines strings.Builder
	for _, name := range names {
		raw, err := os.ReadFile(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(raw), name)
	}
	return os.WriteFile(filepath.Join(r.out, checksums), []byte(lines.String()), 0o644) //nolint:gosec // for everybody
}

// origin finds the commit and its time: from the repository, whose tracked
// files must be unchanged; or, where there is none, as they are given.
func origin(ctx context.Context, root, commit, epoch string) (string, time.Time, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output() //nolint:gosec // fixed words
		return strings.TrimSpace(string(out)), err
	}
	if commit == "" {
		changed, err := git("status", "--porcelain", "--untracked-files=no")
		if err != nil {
			return "", time.Time{}, errors.New("this is no git repository: give -commit and SOURCE_DATE_EPOCH")
		}
		if changed != "" {
			return "", time.Time{}, fmt.Errorf("files differ from the commit; a release is made of a clean one:\n%s", changed)
		}
		if commit, err = git("rev-parse", "HEAD"); err != nil {
			return "", time.Time{}, fmt.Errorf("git rev-parse: %w", err)
		}
	}
	if epoch == "" {
		var err error
		if epoch, err = git("log", "-1", "--format=%ct", commit); err != nil {
			return "", time.Time{}, fmt.Errorf("the time of %s is unknown: set SOURCE_DATE_EPOCH", commit)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 315532800 { // 1980: a zip file knows nothing earlier
		return "", time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, want seconds since 1970, later than 1980", epoch)
	}
	return commit, time.Unix(seconds, 0).UTC(), nil
}
