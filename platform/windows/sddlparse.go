package windows

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ace is one entry of an access list.
type ace struct {
	deny        bool
	inheritOnly bool // for what is made inside, not for the directory itself
	mask        uint32
	sid         string
}

// descriptor is the part of a security descriptor that we judge.
type descriptor struct {
	owner     string
	present   bool // there is an access list; without one everybody may do everything
	protected bool
	aces      []ace
}

var errSDDL = errors.New("security descriptor cannot be understood")

// parseSDDL reads the text form (security descriptor definition language,
// [MS-DTYP] 2.5.1): O:owner G:group D:flags(ace)… S:flags(ace)…, in that order.
// Kinds of entries, rights and names that we do not know are errors: a check
// that does not understand must refuse.
func parseSDDL(text string) (descriptor, error) {
	var d descriptor
	rest := text
	var owner, group string
	owner, rest = sddlPart(rest, "O:")
	group, rest = sddlPart(rest, "G:")
	list, rest := sddlPart(rest, "D:")
	_, rest = sddlPart(rest, "S:")
	if rest != "" {
		return d, fmt.Errorf("%w: %q", errSDDL, rest)
	}
	_ = group // no right follows from it
	var err error
	if d.owner, err = expandSID(owner); err != nil {
		return d, err
	}
	if list == "" || strings.HasPrefix(list, "NO_ACCESS_CONTROL") {
		return d, nil // none, or an empty one: we never make either, and only one of them is harmless
	}
	d.present = true
	flags, entries, _ := strings.Cut(list, "(")
	d.protected = strings.HasPrefix(flags, "P")
	if entries == "" {
		return d, nil
	}
	for e := range strings.SplitSeq(strings.TrimSuffix(entries, ")"), ")(") {
		a, err := parseACE(e)
		if err != nil {
			return d, err
		}
		d.aces = append(d.aces, a)
	}
	return d, nil
}

// sddlPart cuts the part that begins with prefix off the front of text; it
// ends where the next part begins, outside of any parentheses.
func sddlPart(text, prefix string) (part, rest string) {
	if !strings.HasPrefix(text, prefix) {
		return "", text
	}
	text = text[len(prefix):]
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ':':
			if depth == 0 && i > 0 && strings.IndexByte("OGDS", text[i-1]) >= 0 {
				return text[:i-1], text[i-1:]
			}
		}
	}
	return text, ""
}

// parseACE reads type;flags;rights;object;inherited object;account.
func parseACE(s string) (ace, error) {
	f := strings.Split(s, ";")
	if len(f) != 6 || f[3] != "" || f[4] != "" {
		return ace{}, fmt.Errorf("%w: entry %q", errSDDL, s)
	}
	a := ace{deny: f[0] == "D"}
	if f[0] != "A" && f[0] != "D" {
		return ace{}, fmt.Errorf("%w: entry %q", errSDDL, s)
	}
	for flags := f[1]; flags != ""; flags = flags[2:] {
		if len(flags) < 2 {
			return ace{}, fmt.Errorf("%w: flags of %q", errSDDL, s)
		}
		a.inheritOnly = a.inheritOnly || flags[:2] == "IO"
	}
	var err error
	if a.mask, err = parseRights(f[2]); err != nil {
		return ace{}, err
	}
	a.sid, err = expandSID(f[5])
	return a, err
}

// parseRights reads a number or a row of two-letter names.
func parseRights(s string) (uint32, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(s, 0, 32); err == nil {
		return uint32(n), nil
	}
	var mask uint32
	for ; s != ""; s = s[2:] {
		if len(s) < 2 {
			return 0, fmt.Errorf("%w: rights %q", errSDDL, s)
		}
		bits, ok := rightNamed(s[:2])
		if !ok {
			return 0, fmt.Errorf("%w: right %q", errSDDL, s[:2])
		}
		mask |= bits
	}
	return mask, nil
}

func rightNamed(name string) (uint32, bool) {
	bits, ok := map[string]uint32{
		"FA": 0x1f01ff, "FR": 0x120089, "FW": 0x120116, "FX": 0x1200a0,
		"GA": rightGenericAll, "GR": 0x80000000, "GW": rightGenericWrite, "GX": 0x20000000,
		"RC": rightReadControl, "SD": rightDelete, "WD": rightWriteDAC, "WO": rightWriteOwner,
		"CC": 0x1, "DC": rightWriteData, "LC": rightAppend, "SW": 0x8, "RP": 0x10, "WP": 0x20,
		"DT": rightDeleteChild, "LO": 0x80, "CR": 0x100,
	}[name]
	return bits, ok
}

// expandSID turns the two-letter names that the system writes into SIDs.
func expandSID(s string) (string, error) {
	if strings.HasPrefix(s, "S-1-") {
		return s, nil
	}
	sid, ok := map[string]string{
		"SY": sidSystem, "BA": sidAdministrators, "BU": sidUsers, "OW": sidOwnerRights,
		"WD": "S-1-1-0", "CO": "S-1-3-0", "CG": "S-1-3-1", "AN": "S-1-5-7", "AU": "S-1-5-11",
		"IU": "S-1-5-4", "SU": "S-1-5-6", "NU": "S-1-5-2", "RC": "S-1-5-12", "LS": "S-1-5-19", "NS": "S-1-5-20",
		"BG": "S-1-5-32-546", "PU": "S-1-5-32-547", "BO": "S-1-5-32-551", "AC": "S-1-15-2-1",
	}[s]
	if !ok {
		// Names like LA and DU stand for accounts of this machine's domain:
		// none of them is ours, so the name itself will do to refuse it.
		if len(s) == 2 {
			return s, nil
		}
		return "", fmt.Errorf("%w: account %q", errSDDL, s)
	}
	return sid, nil
}
