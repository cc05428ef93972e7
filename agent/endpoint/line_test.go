package endpoint

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/agent/challenge"
	"postern/platform"
)

// line is a client's raw connection.
type line struct {
	t testing.TB
	c net.Conn
	r *bufio.Reader
}

func (r *rig) dial() *line {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return newLine(r.t, c)
}

func newLine(t testing.TB, c net.Conn) *line {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &line{t: t, c: c, r: bufio.NewReader(c)}
}

// reply is one answer, read from the socket.
type reply struct {
	*http.Response
	raw  string // status line and headers as they came
	body string
}

// send writes raw bytes.
func (l *line) send(raw string) {
	l.t.Helper()
	if _, err := io.WriteString(l.c, raw); err != nil {
		l.t.Fatal(err)
	}
}

// ask sends a request and reads the answer.
func (l *line) ask(method, raw string) reply {
	l.t.Helper()
	l.send(raw)
	return l.read(method)
}

func (l *line) read(method string) reply {
	l.t.Helper()
	rep, err := l.tryRead(method)
	if err != nil {
		l.t.Fatalf("read answer: %v", err)
	}
	return rep
}

func (l *line) tryRead(method string) (reply, error) {
	var raw bytes.Buffer
	for {
		text, err := l.r.ReadString('\n')
		raw.WriteString(text)
		if err != nil {
			return reply{}, err
		}
		if text == "\r\n" {
			break
		}
	}
	rep := reply{raw: raw.String()}
	var err error
	rep.Response, err = http.ReadResponse(bufio.NewReader(io.MultiReader(&raw, l.r)), &http.Request{Method: method}) //nolint:bodyclose // its body is replaced below
	if err != nil {
		return rep, err
	}
	// The header was read from raw; the body comes from the line itself.
	var body io.Reader = l.r
	if rep.ContentLength >= 0 {
		body = io.LimitReader(l.r, rep.ContentLength)
	}
	if method != http.MethodHead {
		content, err := io.ReadAll(body)
		if err != nil {
			return rep, err
		}
		rep.body = string(content)
	}
	return rep, nil
}

// request spells a GET with Host and Metadata, and further header lines.
func request(uri string, headers ...string) string {
	return "GET " + uri + " HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n" + lines(headers) + "\r\n"
}

func lines(headers []string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String()
}

// get sends one request on a connection of its own.
func (r *rig) get(uri string, headers ...string) reply {
	r.t.Helper()
	return r.raw(http.MethodGet, request(uri, headers...))
}

func (r *rig) raw(method, raw string) reply {
	r.t.Helper()
	l := r.dial()
	defer func() { _ = l.c.Close() }()
	return l.ask(method, raw)
}

// files are the names in the token directory.
func (r *rig) files() []string {
	r.t.Helper()
	list, err := os.ReadDir(r.tokens)
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// key reads the challenge that a 401 names, as a client would.
func (r *rig) key(rep reply) string {
	r.t.Helper()
	const before = "Basic realm=/var/opt/azcmagent/tokens/"
	realm := rep.Header.Get("Www-Authenticate")
	name, ok := strings.CutPrefix(realm, before)
	if rep.StatusCode != http.StatusUnauthorized || !ok {
		r.t.Fatalf("status %d, realm %q, body %s: want a challenge", rep.StatusCode, realm, rep.body)
	}
	content, err := os.ReadFile(filepath.Join(r.tokens, filepath.Base(name)))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(content)
}

// mustChallenge expects a 401 that names a fresh file.
func (r *rig) mustChallenge(rep reply) string {
	r.t.Helper()
	return r.key(rep)
}

// ask goes the whole way of the flavour and returns the last answer.
func (r *rig) ask(uri string, headers ...string) reply {
	r.t.Helper()
	switch r.flavour {
	case Arc:
		key := r.key(r.get(uri, headers...))
		return r.get(uri, append(headers, "Authorization: Basic "+key)...)
	case AppService:
		uri = strings.Replace(uri, pathToken, pathAppService, 1)
		return r.get(uri, append(headers, "X-IDENTITY-HEADER: "+webSecret)...)
	}
	return r.get(uri, headers...)
}

func (r *rig) must(rep reply, status int, contains string) {
	r.t.Helper()
	if rep.StatusCode != status || !strings.Contains(rep.body, contains) {
		r.t.Errorf("got %d %s\nwant %d with %q", rep.StatusCode, rep.body, status, contains)
	}
}

// errDrift is the failure of a token directory that others can use.
var errDrift = errors.New("drift")

// refusing is a Keeper that makes no challenge.
type refusing struct{ err error }

func (k refusing) Mint(platform.Peer) (string, error) { return "", k.err }

func (k refusing) Redeem(platform.Peer, string) (*challenge.Ticket, error) {
	return nil, fmt.Errorf("%w", challenge.ErrInvalid)
}
