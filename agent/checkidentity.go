package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/agent/control"
	"postern/agent/lifecycle"
)

func identityChecks() []check {
	return []check{
		{"identity-readable", "identity", failed, checkIdentityReadable},
		{"identity-backup", "identity", failed, checkIdentityBackup},
		{"certificate-life", "identity", failed, eachIdentity(certificateLife)},
		{"renewal-overdue", "identity", failed, eachIdentity(renewalOverdue)},
		{"key-certificate-match", "identity", failed, eachIdentity(keyMatches)},
		{"key-protection", "identity", warning, checkKeyProtection},
		{"hardware-fingerprint", "identity", failed, checkHardware},
		{"sealed-image", "identity", failed, checkSealedImage},
	}
}

func checkIdentityReadable(_ context.Context, f *facts) finding {
	if f.known && f.status.Store.Identity == "damaged" {
		return bad(first(f.status.Fix, "sudo postern reconnect --claim-file CLAIM"), "%s", first(f.status.Problem, "the identity cannot be read"))
	}
	if why := f.enrolled(); why.verdict != "" {
		return why
	}
	return ok("%d identities, on %s", len(f.status.Identities), f.status.Store.Identity)
}

// checkIdentityBackup looks whether the copy could stand in for the database.
func checkIdentityBackup(ctx context.Context, f *facts) finding {
	if why := f.enrolled(); why.verdict != "" {
		return why
	}
	path := filepath.Join(f.host.Dirs().State, "identity.db.bak")
	err := verifyChild(ctx, path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return skip("sudo "+only("identity-backup"), "only root or the agent's account may read %s", path)
	case errors.Is(err, fs.ErrNotExist), missingFile(path):
		return bad(startAgent, "%s is missing; a running agent writes it anew", path)
	case cutShort(ctx, err):
		return skip("sudo "+only("identity-backup"), "%v", err)
	case err != nil:
		return bad(startAgent, "%v; a running agent writes it anew", err).because(control.CauseChain(err))
	case f.status.Store.Problem != "":
		return bad(first(f.status.Fix, "postern status"), "%s", f.status.Store.Problem)
	}
	return ok("%s is whole", path)
}

// cutShort: the check did not come to its end, which is nothing against the file.
func cutShort(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded))
}

func missingFile(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// eachIdentity asks about every identity and keeps the worst answer.
func eachIdentity(ask func(control.Identity, time.Time) finding) func(context.Context, *facts) finding {
	return func(_ context.Context, f *facts) finding {
		if why := f.enrolled(); why.verdict != "" {
			return why
		}
		rank := map[verdict]int{passed: 0, skipped: 1, warning: 2, failed: 3}
		var worst finding
		for _, id := range f.status.Identities {
			if found := ask(id, f.status.Now); worst.verdict == "" || rank[found.verdict] > rank[worst.verdict] {
				worst = found
			}
		}
		return worst
	}
}

func certificateLife(id control.Identity, now time.Time) finding {
	life, left := id.NotAfter.Sub(id.NotBefore), id.NotAfter.Sub(now)
	switch {
	case id.NotAfter.IsZero():
		return warn(first(id.Fix, "postern renew"), "%s has no certificate yet", id.Name)
	case left <= 0:
		return bad("sudo postern reconnect --claim-file CLAIM", "the certificate of %s is over since %s", id.Name, id.NotAfter.Format(time.DateOnly))
	case left < life/10:
		return warn("sudo postern renew", "the certificate of %s has %s left", id.Name, leftText(left, life))
	}
	return ok("%s: %s", id.Name, leftText(left, life))
}

// renewalOverdue gives the agent an hour to do what is due.
func renewalOverdue(id control.Identity, now time.Time) finding {
	if id.RenewAt.IsZero() || now.Before(id.RenewAt.Add(time.Hour)) {
		return ok("%s: due %s", id.Name, dateOr(id.RenewAt, "not yet"))
	}
	text := "the renewal of " + id.Name + " is due since " + id.RenewAt.Format(time.DateOnly)
	if id.LastError != "" {
		text += "; last try: " + id.LastError
	}
	if window := id.NotAfter.Sub(id.RenewAt); id.NotAfter.Sub(now) < window/2 {
		return bad("sudo postern renew", "%s", text)
	}
	return warn("sudo postern renew", "%s", text)
}

func dateOr(t time.Time, otherwise string) string {
	if t.IsZero() {
		return otherwise
	}
	return t.Format(time.DateOnly)
}

// keyMatches: the agent loads no credential whose key does not fit.
func keyMatches(id control.Identity, _ time.Time) finding {
	switch {
	case id.Exposed != "":
		return bad("sudo postern reconnect --claim-file CLAIM", "the key of %s is not used again, because others could read it: %s", id.Name, id.Exposed)
	case id.State == lifecycle.Damaged:
		return bad(first(id.Fix, "sudo postern reconnect --claim-file CLAIM"), "%s: %s", id.Name, first(id.Reason, "key or certificate cannot be used"))
	case id.Key == "" && !id.NotAfter.IsZero():
		return bad(first(id.Fix, "sudo postern reconnect --claim-file CLAIM"), "the certificate of %s has no key that may be used", id.Name)
	}
	return ok("%s: the key belongs to the certificate", id.Name)
}

func checkKeyProtection(_ context.Context, f *facts) finding {
	if why := f.enrolled(); why.verdict != "" {
		return why
	}
	if p := f.status.Store.Protection; p != "file" {
		return ok("the keys are protected by %s", p)
	}
	return warn("lsblk -o NAME,FSTYPE,MOUNTPOINT   # put "+f.host.Dirs().State+" on an encrypted partition",
		"the keys lie in a file: whoever takes the disk has them")
}

func checkHardware(_ context.Context, f *facts) finding {
	if why := f.enrolled(); why.verdict != "" {
		return why
	}
	if f.status.State == lifecycle.Moved {
		return bad(first(f.status.Fix, "sudo postern reset --enrolment   # this is a copy; or: sudo postern adopt --hardware-changed"), "%s", first(f.status.Problem, "this is not the hardware that was connected"))
	}
	return ok("this is the hardware that was connected")
}

// checkSealedImage finds an identity in an image that is about to be copied.
func checkSealedImage(_ context.Context, f *facts) finding {
	raw, err := os.ReadFile(machineIDFile)
	id := strings.TrimSpace(string(raw))
	if errors.Is(err, fs.ErrNotExist) || err == nil && id != "" && id != "uninitialized" {
		return ok("this is a device, not an image")
	}
	if missingFile(filepath.Join(f.host.Dirs().State, "identity.json")) {
		return ok("an image without an identity")
	}
	return bad("sudo postern seal-image   # when the agent is stopped", "%s is empty, so this is an image, but it holds an identity that every copy would have", machineIDFile)
}
