package endpoint

import (
	"strings"

	"postern/agent/credential"
)

// Bounds of a query, firmware-notes/limits.md.
const (
	maxQuery    = 6 << 10
	maxResource = 2048
	maxValue    = 1024
)

// params are the parameters that mean something here. The zero value is an
// empty query.
type params struct {
	apiVersion string
	resource   string
	selector   credential.Selector
	refresh    string // lower-case hex SHA-256 of a token, or empty
	format     string

	seen paramSet
}

type paramSet uint8

const (
	hasAPIVersion paramSet = 1 << iota
	hasResource
	hasSelector
	hasRefresh
	hasFormat
)

// parseQuery reads a raw query strictly: what two readers could understand
// differently is refused. problem is empty or says what is wrong, naming the
// parameter.
func parseQuery(raw string) (p params, problem string) {
	if len(raw) > maxQuery {
		return p, "the query is longer than 6144 bytes"
	}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		key, ok := unescape(rawKey)
		if !ok {
			return p, "the name of a parameter is not well encoded"
		}
		value, ok := unescape(rawValue)
		if !ok {
			return p, describeKey(key) + " is not well encoded"
		}
		if problem := p.set(key, value); problem != "" {
			return p, problem
		}
	}
	return p, ""
}

// set takes one parameter. Unknown ones are ignored: clients send xms_cc and more.
func (p *params) set(key, value string) (problem string) {
	var bit paramSet
	var dst *string
	limit := maxValue
	switch key {
	case "api-version":
		bit, dst = hasAPIVersion, &p.apiVersion
	case "resource":
		bit, dst, limit = hasResource, &p.resource, maxResource
	case "client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id":
		if p.seen&hasSelector != 0 {
			return "client_id, object_id, principal_id, msi_res_id and mi_res_id: only one may be given, and once"
		}
		p.selector.Key = key
		bit, dst = hasSelector, &p.selector.Value
	case "token_sha256_to_refresh":
		bit, dst = hasRefresh, &p.refresh
	case "format":
		bit, dst = hasFormat, &p.format
	default:
		if len(value) > maxValue {
			return describeKey(key) + " is longer than 1024 bytes"
		}
		return ""
	}
	switch {
	case p.seen&bit != 0:
		return key + " may be given once"
	case len(value) > limit:
		return key + " is too long"
	case value == "":
		return key + " is empty"
	case !printable(value):
		return key + " has characters that are not printable ASCII"
	}
	p.seen |= bit
	*dst = value
	return ""
}

// describeKey names a foreign parameter without repeating more than its first
// characters.
func describeKey(key string) string {
	const most = 32
	if key == "" || len(key) > most || !printable(key) {
		return "a parameter"
	}
	return key
}

// unescape decodes a form-encoded name or value; false if a percent sign is not
// followed by two hex digits, or at a raw byte that may not stand in a query
// (a semicolon among them: some readers split there).
func unescape(s string) (string, bool) {
	plain := true
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%' || c == '+':
			plain = false
		case c <= ' ' || c >= 0x7f || c == ';' || c == '#':
			return "", false
		}
	}
	if plain {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			b = append(b, ' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi > 15 || lo > 15 {
				return "", false
			}
			b = append(b, hi<<4|lo)
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b), true
}

// unhex returns the value of a hex digit, more than 15 for anything else.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// printable reports whether s is printable ASCII, spaces included.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// token says what a token request lacks; empty if nothing. It strips one
// trailing "/.default", which clients should have done.
func (p *params) token(raw string) (problem string) {
	if problem := p.version(); problem != "" {
		return problem
	}
	if p.seen&hasResource == 0 {
		if strings.HasPrefix(raw, "scope=") || strings.Contains(raw, "&scope=") {
			return "resource is missing: scope is not read here, ask with resource=URI"
		}
		return "resource is missing: ask with resource=URI"
	}
	p.resource = strings.TrimSuffix(p.resource, "/.default")
	if p.resource == "" || strings.TrimSpace(p.resource) == "" {
		return "resource is empty"
	}
	if !lowerHex256(p.refresh) {
		p.refresh = "" // it can match no token
	}
	return ""
}

// version says what is wrong with api-version. Any date will do: it is never
// checked against a list.
func (p *params) version() (problem string) {
	if p.seen&hasAPIVersion == 0 {
		return "api-version is missing: ask with api-version=2020-06-01"
	}
	if !isVersion(p.apiVersion) {
		return "api-version is not a date like 2020-06-01"
	}
	return ""
}

// isVersion accepts YYYY-MM-DD with an optional -suffix of letters, digits, dots
// and dashes.
func isVersion(s string) bool {
	const date = "0000-00-00"
	if len(s) < len(date) || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case i < len(date) && date[i] == '-' || i == len(date):
			if c != '-' {
				return false
			}
		case i < len(date):
			if c < '0' || c > '9' {
				return false
			}
		case c != '-' && c != '.' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z'):
			return false
		}
	}
	return len(s) != len(date)+1
}

func lowerHex256(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
