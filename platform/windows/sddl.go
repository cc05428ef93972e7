package windows

import (
	"fmt"
	"strings"

	"postern/platform"
)

// Service is the name of the service; its account is NT SERVICE\postern.
const Service = "postern"

// Accounts that appear in our descriptors.
const (
	sidSystem           = "S-1-5-18"
	sidAdministrators   = "S-1-5-32-544"
	sidUsers            = "S-1-5-32-545"
	sidOwnerRights      = "S-1-3-4"
	sidTrustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
)

// The descriptors that things are born with, in SDDL. Each has P (protected:
// nothing is inherited from a directory in which users may create folders) and
// an OW entry (the owner keeps the right to read the descriptor and loses the
// implicit one to change it, so that a broken agent cannot open its own keys).
// %[1]s is the agent's account, %[2]s the readers' group.
const (
	// sddlPrivateDir: databases and keys. The agent may do everything but
	// change the list (0x1301bf is modify); SYSTEM and Administrators all.
	sddlPrivateDir = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1301bf;;;%[1]s)(A;OICI;RC;;;OW)"
	// sddlPrivateFile: the same, for one file.
	sddlPrivateFile = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;0x1301bf;;;%[1]s)(A;;RC;;;OW)"
	// sddlTokensDir: challenge files; the readers may list and read (0x1200a9).
	sddlTokensDir = sddlPrivateDir + "(A;OICI;0x1200a9;;;%[2]s)"
	// sddlTokensFile: the same, for one file.
	sddlTokensFile = sddlPrivateFile + "(A;;0x1200a9;;;%[2]s)"
	// sddlPublicDir: the env file and its directory; every local user may read.
	sddlPublicDir = sddlPrivateDir + "(A;OICI;0x1200a9;;;BU)"
	// sddlPublicFile: the same, for one file.
	sddlPublicFile = sddlPrivateFile + "(A;;0x1200a9;;;BU)"
	// sddlPipe: who may talk to the control pipe; each request is decided by
	// peer besides. No network logons (NU), whatever their groups.
	sddlPipe = "D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;GRGW;;;%[1]s)" //nolint:unused // the pipe is Windows' alone, this file is tested everywhere
	// labelHigh keeps processes of lower integrity from writing, even those of
	// an administrator who did not elevate. It is added where we may set it.
	labelHigh = "S:(ML;OICI;NW;;;HI)"
)

// policy is what an Access means: whose a thing may be and who may read it.
type policy struct {
	access  platform.Access
	agent   string // SID of the agent's account
	readers string // SID of the readers' group; empty for none
}

// sddl is the descriptor that a new directory or file gets.
func (p policy) sddl(dir bool) string {
	file, folder := sddlPrivateFile, sddlPrivateDir
	switch {
	case p.access == platform.Public:
		file, folder = sddlPublicFile, sddlPublicDir
	case p.access == platform.TokenReaders && p.readers != "":
		file, folder = sddlTokensFile, sddlTokensDir
	}
	if dir {
		file = folder
	}
	file = strings.ReplaceAll(file, "%[1]s", p.agent)
	return strings.ReplaceAll(file, "%[2]s", p.readers)
}

// Rights that count, of a file and of a directory (winnt.h).
const (
	rightWriteData    = 0x2 // add a file
	rightAppend       = 0x4 // add a folder
	rightDeleteChild  = 0x40
	rightDelete       = 0x10000
	rightReadControl  = 0x20000
	rightWriteDAC     = 0x40000
	rightWriteOwner   = 0x80000
	rightGenericAll   = 0x10000000
	rightGenericWrite = 0x40000000

	readOnly  = 0x1200a9 | 0x80000000 | 0x20000000 // read and execute, as generic rights, too
	readsData = 0x1 | 0x80000000 | rightGenericAll
	// replaces are the rights on a parent directory, or on the thing itself,
	// with which somebody could put another thing in its place.
	replaces = rightDeleteChild | rightDelete | rightWriteDAC | rightWriteOwner | rightGenericAll | rightGenericWrite
)

// own reports whether sid is the agent or an administrator.
func (p policy) own(sid string) bool {
	return sid == p.agent || sid == sidSystem || sid == sidAdministrators
}

// allows says whether the policy knows an entry.
func (p policy) allows(e ace) bool {
	switch {
	case e.deny, p.own(e.sid):
		return true
	case e.sid == sidOwnerRights: // applies to the owner, who is one of us
		return true
	case p.access == platform.Public:
		return e.mask&^readOnly == 0
	case p.access == platform.TokenReaders && p.readers != "" && e.sid == p.readers:
		return e.mask&^readOnly == 0
	}
	return e.mask == 0
}

// judge compares the descriptor of path with the policy; nil means that it fits.
func (p policy) judge(path, sddl string) error { //nolint:unparam // on Windows the path differs
	d, err := parseSDDL(sddl)
	if err != nil {
		return &platform.AccessError{Path: path, Want: p.access, Problem: err.Error()}
	}
	var problems, readers []string
	if !p.own(d.owner) {
		problems = append(problems, "owner is "+d.owner+", want "+p.agent+", SYSTEM or Administrators")
	}
	switch {
	case !d.present:
		problems = append(problems, "has no access list: everyone may do everything")
		readers = append(readers, "everyone")
	case !d.protected:
		problems = append(problems, "inherits from its parent directory")
	}
	served := p.access != platform.TokenReaders || p.readers == ""
	for _, e := range d.aces {
		served = served || !e.deny && e.sid == p.readers && e.mask&readsData != 0
		if p.allows(e) {
			continue
		}
		problems = append(problems, fmt.Sprintf("gives %s %#x", e.sid, e.mask))
		if e.mask&readsData != 0 {
			readers = append(readers, e.sid)
		}
	}
	if !served {
		problems = append(problems, "readers "+p.readers+" cannot read it")
	}
	if len(problems) == 0 {
		return nil
	}
	return &platform.AccessError{
		Path: path, Want: p.access, Problem: strings.Join(problems, "; "), Readers: strings.Join(readers, ", "),
		Fix: fmt.Sprintf(`icacls "%s" /inheritance:r /setowner SYSTEM`, path),
	}
}

// judgeParent says whether names below a directory can be trusted to stay:
// nobody but us, administrators and the installer may delete or take over what
// lies in it. That users may add folders, as in ProgramData, is no harm to what
// is there already.
func (p policy) judgeParent(path, sddl string) error {
	refuse := func(format string, args ...any) error {
		return &platform.AccessError{Path: path, Want: platform.Public, Problem: "is a parent directory that " + fmt.Sprintf(format, args...)}
	}
	d, err := parseSDDL(sddl)
	if err != nil {
		return refuse("cannot be judged: %v", err)
	}
	trusted := func(sid string) bool { return p.own(sid) || sid == sidTrustedInstaller }
	if !trusted(d.owner) {
		return refuse("belongs to %s", d.owner)
	}
	if !d.present {
		return refuse("has no access list")
	}
	for _, e := range d.aces {
		if e.deny || e.inheritOnly || trusted(e.sid) || e.sid == sidOwnerRights {
			continue
		}
		if e.mask&replaces != 0 {
			return refuse("%s may change, rights %#x", e.sid, e.mask)
		}
	}
	return nil
}
