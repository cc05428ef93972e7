package authoritytest

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/agent/lifecycle"
	"postern/agent/token"
)

// Resource is the resource that the tables of this package ask for.
const Resource = "https://vault.test"

// answer is one answer of a token endpoint: raw bytes after the status line,
// and what must become of it. Class 0 means that the token must be taken.
type answer struct {
	name   string
	status string // "200 OK" if empty
	header string // whole lines
	body   string
	raw    func(conn net.Conn) // instead of all that
	class  lifecycle.Class
	words  string
	life   time.Duration // of the token, for class 0
}

// JWT is an unsigned token with these claims, as a caller would see it.
func JWT(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

// tokenWith is a good answer with one member changed, or taken away by "".
func tokenWith(name, value string) string {
	members := []string{"access_token", "token_type", "expires_in"}
	values := map[string]string{"access_token": strconv.Quote(JWT(`{"aud":"` + Resource + `"}`)), "token_type": `"Bearer"`, "expires_in": "3600"}
	if _, known := values[name]; !known && name != "" {
		members = append(members, name)
	}
	if values[name] = value; value == "" {
		delete(values, name)
	}
	var out []string
	for _, m := range members {
		if v, there := values[m]; there {
			out = append(out, `"`+m+`":`+v)
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

func quotedJWT(claims string) string { return strconv.Quote(JWT(claims)) }

// answers are UP4 to UP8 of firmware-notes/faults.md, with the refusals of
// firmware-notes/authorities.md. The driver under test names the resource by "resource".
func answers() []answer {
	const (
		transient = lifecycle.ClassTransient
		denied    = lifecycle.ClassDenied
	)
	hour := time.Hour
	rows := []answer{
		// Taken.
		{name: "good", body: tokenWith("", ""), life: hour},
		{name: "expires_in is a string", body: tokenWith("expires_in", `"3600"`), life: hour},
		{name: "a day", body: tokenWith("expires_in", "86399"), life: 86399 * time.Second},
		{name: "25 hours", body: tokenWith("expires_in", "90000"), life: 25 * hour},
		{name: "one second", body: tokenWith("expires_in", "1"), life: time.Second},
		{name: "bearer in small letters", body: tokenWith("token_type", `"bearer"`), life: hour},
		{name: "more members", body: tokenWith("refresh_in", `{"a":[1]}`), life: hour},
		{name: "opaque token", body: tokenWith("access_token", `"opaque-token_1.2~+/="`), life: hour},
		{name: "audience in a list", body: tokenWith("access_token", quotedJWT(`{"aud":["x","`+Resource+`"]}`)), life: hour},
		{name: "audience with a slash", body: tokenWith("access_token", quotedJWT(`{"aud":"`+Resource+`/"}`)), life: hour},
		{name: "cnf is null", body: tokenWith("access_token", quotedJWT(`{"aud":"`+Resource+`","cnf":null}`)), life: hour},

		// UP4: broken on the way.
		{name: "body cut", header: "Content-Length: 500\r\n", body: tokenWith("", ""), class: transient, words: "broke off"},
		{name: "chunking broken", header: "Transfer-Encoding: chunked\r\n", body: "5\r\n{\"acc", class: transient, words: "broke off"},
		{name: "chunk is no number", header: "Transfer-Encoding: chunked\r\n", body: "zz\r\n{}", class: transient, words: "after 0 bytes"},
		{name: "encoded", header: "Content-Encoding: gzip\r\n", body: "\x1f\x8b", class: transient, words: "encoded"},
		{name: "hangs up", raw: func(net.Conn) {}, class: transient, words: "broke off"},

		// UP5: expires_in.
		{name: "expires_in 0", body: tokenWith("expires_in", "0"), class: transient, words: "expires_in"},
		{name: "expires_in negative", body: tokenWith("expires_in", "-1"), class: transient, words: "expires_in"},
		{name: "expires_in a fraction", body: tokenWith("expires_in", "3600.5"), class: transient, words: "expires_in"},
		{name: "expires_in 1e18", body: tokenWith("expires_in", "1e18"), class: transient, words: "expires_in"},
		{name: "expires_in huge", body: tokenWith("expires_in", "1000000000000000000"), class: transient, words: "expires_in"},
		{name: "expires_in over 25 hours", body: tokenWith("expires_in", "90001"), class: transient, words: "expires_in"},
		{name: "expires_in missing", body: tokenWith("expires_in", ""), class: transient, words: "expires_in"},
		{name: "expires_in null", body: tokenWith("expires_in", "null"), class: transient, words: "expires_in"},
		{name: "expires_in an empty string", body: tokenWith("expires_in", `""`), class: transient, words: "expires_in"},
		{name: "expires_in a word", body: tokenWith("expires_in", `"soon"`), class: transient, words: "expires_in"},
		{name: "expires_in with spaces", body: tokenWith("expires_in", `" 60 "`), class: transient, words: "expires_in"},
		{name: "expires_in a list", body: tokenWith("expires_in", `[60]`), class: transient, words: "expires_in"},

		// UP6: size.
		{name: "10 GB", raw: endless, class: transient, words: "more than 65536 bytes"},
		{name: "header without end", raw: endlessHeader, class: transient, words: "32768 bytes"},
		{name: "token of 32 KiB and one", body: tokenWith("access_token", strconv.Quote(strings.Repeat("a", 32<<10+1))), class: transient, words: "access token"},

		// UP7: redirects.
		{name: "redirect to http", status: "307 Temporary Redirect", header: "Location: http://" + Host + "/token\r\n", class: transient, words: "http://" + Host},
		{name: "redirect to another host", status: "302 Found", header: "Location: https://evil.test/token\r\n", class: transient, words: "https://evil.test"},
		{name: "redirect to a file", status: "301 Moved Permanently", header: "Location: file:///etc/passwd\r\n", class: transient, words: "file:"},
		{name: "300 without a place", status: "300 Multiple Choices", class: transient, words: "answered 300"},

		// UP8: an error in a 200.
		{name: "200 with invalid_client", body: `{"error":"invalid_client","error_description":"no"}`, class: lifecycle.ClassRejected, words: "invalid_client: no"},
		{name: "200 with invalid_target", body: `{"error":"invalid_target"}`, class: lifecycle.ClassBadResource, words: "invalid_target"},
		{name: "200 with an error and a token", body: tokenWith("error", `"access_denied"`), class: denied, words: "access_denied"},

		// Not the JSON of a token.
		{name: "captive portal", header: "Content-Type: text/html\r\n", body: "<html>log in", class: transient, words: "not the JSON"},
		{name: "empty", class: transient, words: "not the JSON"},
		{name: "no content", status: "204 No Content", class: transient, words: "answered 204"},
		{name: "a list", body: "[" + tokenWith("", "") + "]", class: transient, words: "not the JSON"},
		{name: "null", body: "null", class: transient, words: "not the JSON"},
		{name: "two of them", body: tokenWith("", "") + tokenWith("", ""), class: transient, words: "not the JSON"},
		{name: "cut short but well framed", body: strings.TrimSuffix(tokenWith("", ""), "}"), class: transient, words: "not the JSON"},
		{name: "a member twice", body: `{"access_token":"a","access_token":"b","token_type":"Bearer","expires_in":60}`, class: transient, words: "not the JSON"},
		{name: "a member twice, another case", body: `{"access_token":"a","Access_Token":"b","token_type":"Bearer","expires_in":60}`, class: transient, words: "not the JSON"},
		{name: "not UTF-8", body: "{\"access_token\":\"\xff\",\"token_type\":\"Bearer\",\"expires_in\":60}", class: transient, words: "not the JSON"},

		// Not a token that could be handed out.
		{name: "token_type missing", body: tokenWith("token_type", ""), class: transient, words: "not Bearer"},
		{name: "token_type mac", body: tokenWith("token_type", `"mac"`), class: transient, words: `"mac"`},
		{name: "token missing", body: tokenWith("access_token", ""), class: transient, words: "access token"},
		{name: "token empty", body: tokenWith("access_token", `""`), class: transient, words: "access token"},
		{name: "token a number", body: tokenWith("access_token", "5"), class: transient, words: "access token"},
		{name: "token with a space", body: tokenWith("access_token", `"a b"`), class: transient, words: "access token"},
		{name: "token with a line break", body: tokenWith("access_token", `"a\r\nX-Evil: 1"`), class: transient, words: "access token"},
		{name: "token not ASCII", body: tokenWith("access_token", `"ä"`), class: transient, words: "access token"},
		{name: "no audience", body: tokenWith("access_token", quotedJWT(`{"sub":"a"}`)), class: denied, words: "for no resource"},
		{name: "audience an empty list", body: tokenWith("access_token", quotedJWT(`{"aud":[]}`)), class: denied, words: "for no resource"},
		{name: "audience an empty string", body: tokenWith("access_token", quotedJWT(`{"aud":[""]}`)), class: denied, words: "for no resource"},
		{name: "audience a number", body: tokenWith("access_token", quotedJWT(`{"aud":5}`)), class: denied, words: "cannot be read"},
		{name: "audience twice", body: tokenWith("access_token", quotedJWT(`{"aud":"`+Resource+`","aud":"x"}`)), class: denied, words: "cannot be read"},
		{name: "audience of another", body: tokenWith("access_token", quotedJWT(`{"aud":"https://other.test\u001b"}`)), class: denied, words: "not for the resource"},
		{name: "audience longer", body: tokenWith("access_token", quotedJWT(`{"aud":"`+Resource+`.evil.test"}`)), class: denied, words: "not for the resource"},
		{name: "bound to our key", body: tokenWith("access_token", quotedJWT(`{"aud":"`+Resource+`","cnf":{"x5t#S256":"a"}}`)), class: denied, words: "tls_client_certificate_bound_access_tokens"},
	}
	return rows
}

func endless(conn net.Conn) {
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n"); err != nil {
		return
	}
	chunk := []byte(strings.Repeat("a", 4096))
	for {
		if _, err := conn.Write(chunk); err != nil {
			return
		}
	}
}

func endlessHeader(conn net.Conn) {
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-A: "); err != nil {
		return
	}
	chunk := []byte(strings.Repeat("a", 4096))
	for {
		if _, err := conn.Write(chunk); err != nil {
			return
		}
	}
}

// TokenAnswers gives every answer of the table to a driver. open returns the
// driver for the token endpoint https://authority.test/token, which names the
// resource by "resource" and proves itself as it likes.
func TokenAnswers(t *testing.T, open func(t *testing.T, w *World, tokenURL string) token.Issuer) {
	t.Helper()
	for _, row := range answers() {
		t.Run(row.name, func(t *testing.T) {
			In(t, func(t *testing.T, w *World) {
				w.Serve("evil.test", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
				who := w.PKI.Credential("11111111-2222-3333-4444-555555555555")
				time.Sleep(2 * time.Hour) // of the bubble: the key is not new any more
				w.Serve(Host, http.HandlerFunc(row.serve))
				got, err := open(t, w, "https://"+Host+"/token").Issue(t.Context(), who, Resource)
				row.check(t, got, err)
			})
		})
	}
}

func (a answer) check(t *testing.T, got token.Issued, err error) {
	t.Helper()
	if a.class != 0 {
		WantError(t, err, a.class, a.words)
		if !got.Value.Empty() || got.ExpiresIn != 0 {
			t.Errorf("a token came with the error: %v", got)
		}
		return
	}
	if err != nil || got.Value.Empty() || got.ExpiresIn != a.life {
		t.Errorf("got a token for %v, %v; want one for %v", got.ExpiresIn, err, a.life)
	}
}

// serve writes the answer byte by byte past net/http's good manners.
func (a answer) serve(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	if a.raw != nil {
		a.raw(conn)
		return
	}
	status := a.status
	if status == "" {
		status = "200 OK"
	}
	out := bufio.NewWriter(conn)
	_, err1 := out.WriteString("HTTP/1.1 " + status + "\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n" + a.header)
	if !strings.Contains(a.header, "Length") && !strings.Contains(a.header, "chunked") && !strings.HasPrefix(status, "204") {
		_, err = out.WriteString("Content-Length: " + strconv.Itoa(len(a.body)) + "\r\n")
	}
	_, err2 := out.WriteString("\r\n" + a.body)
	if errors.Join(err, err1, err2) == nil {
		_ = out.Flush() // the client may have gone
	}
}
