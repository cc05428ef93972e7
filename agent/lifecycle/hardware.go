package lifecycle

import "strings"

// SameHardware compares the hardware facts of enrolment with those found now,
// each "name=digest"; a name may occur more than once (network cards) and
// matches when any of its digests does. It decides k of n, so that one
// replaced part is not a clone:
//
//   - more than half of the enrolled names must match; a missing one does not;
//   - the machine-id is copied with every image and is therefore counted only
//     to break a tie, or when nothing else was enrolled.
//
// With nothing enrolled there is nothing to compare: true.
func SameHardware(enrolled, found []string) bool {
	have := make(map[string]bool, len(found))
	for _, fact := range found {
		have[fact] = true
	}
	matches := make(map[string]bool)
	for _, fact := range enrolled {
		name, _, ok := strings.Cut(fact, "=")
		if !ok {
			continue // not a fact
		}
		matches[name] = matches[name] || have[fact]
	}
	strong, same := 0, 0
	soft, softSame := false, false
	for name, match := range matches {
		if isMachineID(name) {
			soft, softSame = true, softSame || match
			continue
		}
		strong++
		if match {
			same++
		}
	}
	if 2*same == strong {
		return softSame || strong == 0 && !soft
	}
	return 2*same > strong
}

func isMachineID(name string) bool {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name)) == "machineid"
}
