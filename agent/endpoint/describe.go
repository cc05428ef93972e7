package endpoint

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"postern/agent/lifecycle"
)

// maxDescription bounds a description. Upstream words in it are bounded to 256
// characters by their driver.
const maxDescription = 1024

// describe joins what, why and the next command. What is foreign in it is
// cleaned when the answer is sent.
func describe(what, why, command string) string {
	text := what
	if why != "" {
		text += ": " + why
	}
	if command != "" {
		text = strings.TrimRight(text, ".") + ". " + command
	}
	return text
}

// wordsOf is what an error says, without repeating whole causes: the
// authority's code and words, else the deepest cause that we know.
func wordsOf(err error) string {
	var e *lifecycle.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	switch {
	case e.Code != "" && e.Reason != "":
		return e.Code + ": " + e.Reason
	case e.Code+e.Reason != "":
		return e.Code + e.Reason
	case e.Err != nil:
		return e.Err.Error()
	}
	return e.Op
}

// clean makes text fit for a stranger's eyes: one line of printable characters,
// bounded; no path of the state directory; nothing shaped like a token; and
// never the word that makes every credential chain believe that there is no
// IMDS here (firmware-notes/wire.md).
func clean(text, stateDir string) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if stateDir = strings.TrimRight(stateDir, `/\`); stateDir != "" {
		text = withoutPath(text, stateDir)
	}
	text = withoutTokens(text)
	text = withoutWord(text, "unreachable", "not reachable")
	if len(text) > maxDescription {
		text = strings.ToValidUTF8(text[:maxDescription], "")
	}
	return text
}

// withoutPath leaves only names relative to dir, also where taking one out
// makes another.
func withoutPath(text, dir string) string {
	const instead = "the state directory"
	for !strings.Contains(instead, dir) && strings.Contains(text, dir) {
		text = strings.ReplaceAll(text, dir+"/", "")
		text = strings.ReplaceAll(text, dir+`\`, "")
		text = strings.ReplaceAll(text, dir, instead)
	}
	return text
}

// withoutWord replaces an ASCII word, whatever its case.
func withoutWord(text, word, by string) string {
	var out strings.Builder
	for i := 0; i+len(word) <= len(text); {
		if strings.EqualFold(text[i:i+len(word)], word) {
			out.WriteString(text[:i])
			out.WriteString(by)
			text, i = text[i+len(word):], 0
			continue
		}
		i++
	}
	out.WriteString(text)
	return out.String()
}

// withoutTokens replaces whatever begins like a JWT.
func withoutTokens(text string) string {
	const begin, shortest = "eyJ", 16
	var out strings.Builder
	for {
		i := strings.Index(text, begin)
		if i < 0 {
			break
		}
		end := i
		for end < len(text) && tokenByte(text[end]) {
			end++
		}
		out.WriteString(text[:i])
		if end-i >= shortest {
			out.WriteString("[redacted]")
		} else {
			out.WriteString(text[i:end])
		}
		text = text[end:]
	}
	out.WriteString(text)
	return out.String()
}

func tokenByte(c byte) bool {
	return c == '-' || c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// capital begins s with a capital letter.
func capital(s string) string {
	if s == "" {
		return s
	}
	r, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[size:]
}
