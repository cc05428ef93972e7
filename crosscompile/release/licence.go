package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// licences are the texts that may be linked into a release, by the fingerprint
// of their words. A text that is not here stops the release: somebody has to
// read it first. A licence may have several fingerprints, where authors changed
// a word that does not matter.
var licences = map[string]string{
	"37599287c15c2f2ec060c3c3b55bdf69": "Apache-2.0",
	"986c3c3199a93b916c8f2e0aeed57819": "BSD-2-Clause",
	"22da26f1e162f3c724a0126b4d9cf42e": "BSD-3-Clause",
	"0cf21bdfd1964a97a8615e1285348458": "MIT",
}

// errLicence is wrapped by what keeps a module out of a release.
var errLicence = errors.New("unknown licence")

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([.-].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^(notice|patents|authors)([.-].*)?$`)
	// ownLines name an author and differ from project to project.
	ownLines = regexp.MustCompile(`(?im)^[\s*#/]*(copyright +(\(c\)|[0-9]{4}).*|all rights reserved\.?|the mit license( \(mit\))?|mit license|(the )?bsd [23]-clause license)\s*$`)
	holder   = regexp.MustCompile(`neither the name of .{1,80}? nor the names of its`)
	words    = regexp.MustCompile(`[a-z0-9]+`)
)

// apacheEnd stands before the appendix that tells how to apply the licence.
const apacheEnd = "end of terms and conditions"

// fingerprint is the SHA-256 of a licence's words: layout, punctuation and
// the author's name do not count, every other word does.
func fingerprint(text string) string {
	text = strings.ReplaceAll(text, "©", "(c)")
	plain := strings.Join(words.FindAllString(strings.ToLower(ownLines.ReplaceAllString(text, "")), -1), " ")
	plain = holder.ReplaceAllString(plain, "neither the name of the holder nor the names of its")
	if strings.HasPrefix(plain, "apache license") {
		if i := strings.Index(plain, apacheEnd); i >= 0 && isAppendix(plain[i+len(apacheEnd):]) {
			plain = strings.TrimSpace(plain[:i])
		}
	}
	sum := sha256.Sum256([]byte(plain))
	return hex.EncodeToString(sum[:16])
}

// isAppendix accepts nothing, or the appendix of the Apache licence, whose one
// part that authors fill in is a copyright line.
func isAppendix(plain string) bool {
	plain = strings.TrimSpace(plain)
	return plain == "" || strings.HasPrefix(plain, "appendix how to apply the apache license to your work") && strings.HasSuffix(plain, "limitations under the license") ||
		strings.HasPrefix(plain, "copyright") && strings.HasSuffix(plain, "limitations under the license")
}

// notice is a file that must be handed on with the binary.
type notice struct{ name, text string }

// readLicences names the licences of what lies in dir, an own folder of a
// module, and returns their texts and notices. Every licence file must be known.
func readLicences(dir string) (ids []string, notices []notice, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		isLicence := licenceFile.MatchString(e.Name()) && !strings.HasSuffix(e.Name(), ".go")
		if e.IsDir() || !isLicence && !noticeFile.MatchString(e.Name()) {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, nil, err
		}
		notices = append(notices, notice{e.Name(), string(raw)})
		if !isLicence {
			continue
		}
		mark := fingerprint(string(raw))
		id, ok := licences[mark]
		if !ok {
			return nil, nil, fmt.Errorf("%w: %s, fingerprint %s; read it, then add it to licences in crosscompile/release/licence.go",
				errLicence, filepath.Join(dir, e.Name()), mark)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, notices, nil
}
