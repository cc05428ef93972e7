package endpoint

import (
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"postern/agent/credential"
	"postern/agent/token"
)

const (
	typeJSON = "application/json; charset=utf-8"
	typeText = "text/plain; charset=utf-8"
)

// Codes of firmware-notes/wire.md.
const (
	codeInvalidRequest  = "invalid_request"
	codeNoMetadata      = "bad_request_102"
	codeInvalidResource = "invalid_resource"
	codeUnauthorized    = "unauthorized_client"
	codeAccessDenied    = "access_denied"
	codeUnavailable     = "temporarily_unavailable"
	codeTooMany         = "too_many_requests"
	codeNotFound        = "not_found"
	codeNoMethod        = "method_not_allowed"
	codeUnknown         = "unknown"
)

// answer is an error that is about to be sent.
type answer struct {
	status int
	code   string
	text   string // what, why and the next command; cleaned by sendError
	retry  int    // Retry-After in seconds, 1 to 10; 0 for none
	close  bool   // the connection cannot be used further
}

// Values of headers that never change; net/http only reads them. The names are
// those that net/http writes.
var (
	valueNoStore    = []string{"no-store"}
	valueNoSniff    = []string{"nosniff"}
	valueSameOrigin = []string{"same-origin"}
	valueJSON       = []string{typeJSON}
	valueText       = []string{typeText}
	valueGET        = []string{http.MethodGet}
	valueClose      = []string{"close"}
)

// buffers hold bodies; they are cleared after use, since most hold a token.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

func freeBuffer(b *[]byte) {
	clear((*b)[:cap(*b)])
	*b = (*b)[:0]
	buffers.Put(b)
}

// send writes one answer, headers and body in one go.
func (x *exchange) send(status int, contentType []string, body []byte) {
	h := x.w.Header()
	h["Cache-Control"] = valueNoStore
	h["X-Content-Type-Options"] = valueNoSniff
	h["Cross-Origin-Resource-Policy"] = valueSameOrigin
	h["Content-Type"] = contentType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.status, x.begun = status, true
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body) // the client is gone, or too slow: net/http closes
}

// sendError writes an error body and remembers what it was.
func (x *exchange) sendError(a answer) {
	h := x.w.Header()
	if a.retry > 0 {
		h["Retry-After"] = []string{strconv.Itoa(a.retry)}
	}
	if a.status == http.StatusMethodNotAllowed {
		h["Allow"] = valueGET
	}
	if a.close {
		h["Connection"] = valueClose
	}
	x.code = a.code
	b, _ := buffers.Get().(*[]byte)
	defer freeBuffer(b)
	a.text = clean(a.text, x.s.o.StateDir)
	*b = appendError(*b, a, x.correlation())
	x.send(a.status, valueJSON, *b)
}

func appendError(b []byte, a answer, correlation string) []byte {
	b = append(b, `{"error":`...)
	b = appendString(b, a.code)
	b = append(b, `,"error_description":`...)
	b = appendString(b, a.text)
	b = append(b, `,"correlation_id":`...)
	b = appendString(b, correlation)
	return append(b, '}')
}

// appendToken encodes a 200 of firmware-notes/wire.md: every value a string, in this
// order, then the selector that was asked for, in its recorded spelling.
func appendToken(b []byte, t *token.Token, selector credential.Selector) []byte {
	left := int64(t.Remaining / time.Second)
	b = append(b, `{"access_token":`...)
	b = appendString(b, t.Value.Reveal())
	b = append(b, `,"client_id":`...)
	b = appendString(b, t.Identity.ClientID)
	b = append(b, `,"expires_in":"`...)
	b = strconv.AppendInt(b, left, 10)
	b = append(b, `","expires_on":"`...)
	b = strconv.AppendInt(b, t.ExpiresOn.Unix(), 10)
	b = append(b, `","ext_expires_in":"`...)
	b = strconv.AppendInt(b, left, 10)
	b = append(b, `","not_before":"`...)
	b = strconv.AppendInt(b, t.NotBefore.Unix(), 10)
	b = append(b, `","resource":`...)
	b = appendString(b, t.Resource)
	b = append(b, `,"token_type":"Bearer"`...)
	if echo := recorded(t.Identity, selector.Key); echo != "" {
		b = append(b, ',')
		b = appendString(b, selector.Key)
		b = append(b, ':')
		b = appendString(b, echo)
	}
	return append(b, '}')
}

// recorded is what stands in an identity under the key of a selector; empty for
// client_id, which is always there.
func recorded(id credential.Identity, key string) string {
	switch key {
	case "object_id", "principal_id":
		return id.ObjectID
	case "msi_res_id", "mi_res_id":
		return id.ResourceID
	}
	return ""
}

// appendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if c >= utf8.RuneSelf && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = utf8.AppendRune(b, utf8.RuneError)
		}
		i += size
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
