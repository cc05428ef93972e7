package main

import (
	"io"
	"strings"
)

// redactor is a second line behind store.Secret: what is shaped like a secret
// does not get into a log or an error. That something was to be hidden here is
// a bug, and the stories fail when they meet the word (TestStories).
type redactor struct{ to io.Writer }

const hidden = "[hidden by the last guard]"

// Write implements io.Writer.
func (r redactor) Write(text []byte) (int, error) {
	var out strings.Builder
	for rest := string(text); rest != ""; {
		if n := secretAt(rest); n > 0 {
			out.WriteString(hidden)
			rest = rest[n:]
			continue
		}
		out.WriteByte(rest[0])
		rest = rest[1:]
	}
	if _, err := io.WriteString(r.to, out.String()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// secretAt is how many bytes a secret has that text begins with: a signed
// token, a block of PEM, or what a form or a header carries. A line of the log is
// one line: its line ends and quotes are escaped. 0 if it begins with none.
func secretAt(text string) int {
	switch text[0] {
	case 'e':
		return tokenAt(text)
	case '-':
		if strings.HasPrefix(text, "-----BEGIN ") {
			return without(text, "\"\n")
		}
	case 'c', 'C':
		for _, field := range []string{"client_secret=", "client_assertion="} {
			if beginsWith(text, field) {
				return found(len(field), without(text[len(field):], " \t\f\r\n&\"\\"))
			}
		}
	case 'a', 'A':
		const header, ends = "authorization:", " \t\f\r\n\"\\"
		if !beginsWith(text, header) {
			return 0
		}
		at := len(header) + len(text[len(header):]) - len(strings.TrimPrefix(text[len(header):], " "))
		n := found(at, without(text[at:], ends))
		if second := text[n:]; n > 0 && strings.HasPrefix(second, " ") { // Bearer and its token
			n += found(1, without(second[1:], ends))
		}
		return n
	}
	return 0
}

// tokenAt knows a signed token by its three parts.
func tokenAt(text string) int {
	const inToken = letters + "_-"
	if !strings.HasPrefix(text, "eyJ") {
		return 0
	}
	at := 0
	for _, least := range []int{len("eyJ") + 8, 2} {
		part := len(text[at:]) - len(strings.TrimLeft(text[at:], inToken))
		if at += part; part < least || at == len(text) || text[at] != '.' {
			return 0
		}
		at++
	}
	return len(text) - len(strings.TrimLeft(text[at:], inToken))
}

// found is the length of a name and its value, 0 without a value.
func found(name, value int) int {
	if value == 0 {
		return 0
	}
	return name + value
}

// without is how many bytes come before one of the set.
func without(text, set string) int {
	if i := strings.IndexAny(text, set); i >= 0 {
		return i
	}
	return len(text)
}

func beginsWith(text, word string) bool {
	return len(text) >= len(word) && strings.EqualFold(text[:len(word)], word)
}
