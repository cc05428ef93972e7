package config

import (
	"encoding/hex"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

const maxText = 1024 // bytes of any text

// printable accepts any text that a terminal shows as it is.
func printable(s string) (string, *problem) {
	if len(s) > maxText {
		return "", &problem{quote(s) + " is longer than " + strconv.Itoa(maxText) + " bytes", ""}
	}
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return "", &problem{quote(s) + " has a character that cannot be printed", ""}
		}
	}
	if strings.TrimSpace(s) != s {
		return "", &problem{quote(s) + " begins or ends with a space", ""}
	}
	return s, nil
}

// absolute accepts an absolute path and cleans it.
func absolute(s string) (string, *problem) {
	if _, p := printable(s); p != nil {
		return "", p
	}
	if !filepath.IsAbs(s) {
		return "", &problem{quote(s) + " is not an absolute path", ""}
	}
	return printable(filepath.Clean(s))
}

// baseURL is a secureURL to which paths are added.
func baseURL(s string) (string, *problem) {
	s, p := secureURL(s)
	return strings.TrimRight(s, "/"), p
}

// secureURL accepts a URL of an authority, as it is: issuers are compared
// letter by letter. Loopback is no excuse for plain HTTP (firmware-notes/authorities.md).
func secureURL(s string) (string, *problem) {
	u, p := plainURL(s)
	if p != nil {
		return "", p
	}
	if u.Scheme != "https" {
		return "", &problem{quote(s) + " is not https", "begin it with https://"}
	}
	return s, nil
}

// plainURL accepts a URL of scheme, host and path: nothing that could carry a secret.
func plainURL(s string) (*url.URL, *problem) {
	if _, p := printable(s); p != nil {
		return nil, p
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return nil, &problem{"the text is not a URL with scheme and host", `write it as "https://host:port"`}
	}
	if u.User != nil {
		return nil, &problem{"the URL carries credentials", "take them out: no secret belongs in this file"}
	}
	if u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") {
		return nil, &problem{quote(s) + " has a query or fragment", "leave it out"}
	}
	if n, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || n < 1 || n > 65535) {
		return nil, &problem{quote(s) + " has a port that is none", ""}
	}
	return u, nil
}

// proxy accepts "environment" or the URL of a proxy without credentials.
func proxy(s string) (string, *problem) {
	if s == "environment" {
		return s, nil
	}
	u, p := plainURL(s)
	switch {
	case p != nil && strings.HasPrefix(p.what, "the URL carries"):
		return "", &problem{p.what, "put user:password into a file and name it in proxy_credentials_file"}
	case p != nil:
		return "", &problem{p.what, `write "environment" or "http://host:port"`}
	case u.Scheme != "http" && u.Scheme != "https":
		return "", &problem{quote(s) + " is neither http nor https", ""}
	case strings.Trim(u.Path, "/") != "":
		return "", &problem{quote(s) + " has a path", "leave it out"}
	}
	return strings.TrimRight(s, "/"), nil
}

// fingerprint accepts hexadecimal SHA-256, with or without colons, any case.
func fingerprint(s string) (string, *problem) {
	plain := strings.ToLower(strings.ReplaceAll(s, ":", ""))
	if b, err := hex.DecodeString(plain); err != nil || len(b) != 32 {
		return "", &problem{quote(s) + " is not a SHA-256 of 64 hexadecimal digits", ""}
	}
	return plain, nil
}

// clientID accepts what authorities call identities: a GUID is kept in lower
// case, anything else as it is.
func clientID(s string) (string, *problem) {
	if _, p := printable(s); p != nil {
		return "", p
	}
	if strings.ContainsAny(s, " ") {
		return "", &problem{quote(s) + " has a space", ""}
	}
	if isGUID(s) {
		return strings.ToLower(s), nil
	}
	return s, nil
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range []byte(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if r != '-' {
				return false
			}
			continue
		}
		if !strings.ContainsRune("0123456789abcdefABCDEF", rune(r)) {
			return false
		}
	}
	return true
}

// system names the system-assigned identity wherever a client id may stand.
const system = "system"

// ownID is a clientID for an identity of this device.
func ownID(s string) (string, *problem) {
	if s == system {
		return "", &problem{quote(s) + " is a word of its own", "write the client id"}
	}
	return clientID(s)
}

// tenant accepts a tenant id or domain: one segment of a URL's path.
func tenant(s string) (string, *problem) {
	name, p := hostName(s)
	if p != nil {
		return "", &problem{quote(s) + " is no tenant", "write its id or its domain"}
	}
	return name, nil
}

// resource accepts a resource, or a prefix with a star at the end.
func resource(s string) (string, *problem) {
	const maxResource = 2048 // as at the endpoint
	name := strings.TrimSuffix(s, "*")
	switch {
	case strings.Contains(name, "*"):
		return "", &problem{quote(s) + " has a star before its end", "leave the star only at the end"}
	case len(name) > maxResource:
		return "", &problem{quote(s) + " is longer than 2048 bytes", ""}
	}
	for _, r := range name {
		if r <= ' ' || r > '~' {
			return "", &problem{quote(s) + " has a character that no resource has", ""}
		}
	}
	return s, nil
}

// resourceParam accepts the names of oauth's ways to name a resource.
func resourceParam(s string) (string, *problem) {
	if scope, ok := strings.CutPrefix(s, "scope:"); ok && scope != "" {
		return printable(s)
	}
	switch s {
	case "entra_scope", "resource", "audience":
		return s, nil
	}
	return "", &problem{quote(s) + " is not known", `use "entra_scope", "resource", "audience" or "scope:NAME"`}
}

// who accepts the forms of a grant (firmware-notes/attack-surface.md). token.NewGrants parses them
// again and resolves the names.
func who(s string) (string, *problem) {
	forms := &problem{quote(s) + " names nobody", `write it as "uid:1001", "user:NAME", "group:NAME" or "listener:NAME"`}
	form, name, _ := strings.Cut(s, ":")
	if name == "" {
		return "", forms
	}
	switch form {
	case "uid":
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != name || n == 1<<32-1 {
			return "", &problem{quote(s) + " is not a user id", "write a number from 0 to 4294967294"}
		}
	case "sid":
		if !strings.HasPrefix(name, "S-1-") {
			return "", &problem{quote(s) + " is not a security identifier", "begin it with S-1-"}
		}
	case "user", "group", "listener", "workload":
	default:
		return "", forms
	}
	return printable(s)
}

// label accepts the name of a workload: it stands in file names, variables and the audit.
func label(s string) (string, *problem) {
	bad := &problem{quote(s) + " is no name", "use at most 32 small letters, digits and hyphens, a letter first"}
	if len(s) > 32 || s[0] < 'a' || s[0] > 'z' {
		return "", bad
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return "", bad
		}
	}
	return s, nil
}
