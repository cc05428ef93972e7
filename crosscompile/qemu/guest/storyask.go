//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// answer is what one program got from the endpoint: the challenge, its file,
// and the second request.
type answer struct {
	First  int    `json:"first"`            // status of the request without a key
	Path   string `json:"path,omitempty"`   // the challenge file that the answer names
	Unread string `json:"unread,omitempty"` // why it could not be read
	Key    string `json:"key,omitempty"`    // only when asked to stop at it
	Second int    `json:"second,omitempty"` // status of the request with the key
	Retry  string `json:"retry,omitempty"`  // its Retry-After
	Body   string `json:"body,omitempty"`   // of the last answer, unless it is a token
	Token  claims `json:"token,omitzero"`
}

// claims are the parts of a token that a story looks at; the token itself is
// never said.
type claims struct {
	Digest   string `json:"digest"`
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"`
	Expires  int64  `json:"exp"`
}

const (
	endpointPort = 40342
	resource     = "https://vault.azure.net"
	tokenPath    = "/metadata/identity/oauth2/token?api-version="
)

// flavour is one way to ask for a token.
type flavour struct {
	address [4]byte
	port    int
	host    string
	version string
}

func arc() flavour {
	return flavour{[4]byte{127, 0, 0, 1}, endpointPort, "localhost:40342", "2020-06-01"}
}

func imds() flavour { return flavour{[4]byte{169, 254, 169, 254}, 80, "169.254.169.254", "2018-02-01"} }

// storyAsk is the unprivileged program: guest story-ask [key KEY | stop | imds].
func storyAsk(args []string) int {
	a, err := handshake(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "story-ask:", err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		return 1
	}
	return 0
}

func handshake(args []string) (answer, error) {
	var a answer
	if len(args) == 1 && args[0] == "imds" {
		r, err := imds().get("")
		if err != nil {
			return a, err
		}
		return a, a.second(r)
	}
	r, err := arc().get("")
	if err != nil {
		return a, err
	}
	a.First, a.Body = r.status, string(r.body)
	path, ok := strings.CutPrefix(r.header("Www-Authenticate"), "Basic realm=")
	if a.First != 401 || !ok {
		return a, nil
	}
	a.Path = path
	key, err := os.ReadFile(path)
	if err != nil {
		a.Unread, key = err.Error(), []byte("of-no-use")
	}
	switch {
	case len(args) == 1 && args[0] == "stop":
		a.Key = string(key)
		return a, nil
	case len(args) == 2 && args[0] == "key":
		key = []byte(args[1])
	}
	if r, err = arc().get(string(key)); err != nil {
		return a, err
	}
	return a, a.second(r)
}

// second notes the answer that has a token, or says why there is none.
func (a *answer) second(r response) (err error) {
	a.Second, a.Body, a.Retry = r.status, string(r.body), r.header("Retry-After")
	if r.status == 200 {
		a.Body = ""
		a.Token, err = parseToken(r.body)
	}
	return err
}

// parseToken looks into the token of a 200.
func parseToken(body []byte) (claims, error) {
	var c claims
	var said struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return c, fmt.Errorf("answer: %w", err)
	}
	parts := strings.Split(said.Token, ".")
	if len(parts) != 3 || len(parts[2]) < 40 {
		return c, errors.New("the answer holds no signed token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, fmt.Errorf("token: %w", err)
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, fmt.Errorf("token: %w", err)
	}
	digest := sha256.Sum256([]byte(said.Token))
	c.Digest = hex.EncodeToString(digest[:8])
	return c, nil
}

// response is one HTTP answer.
type response struct {
	status int
	head   string
	body   []byte
}

func (r response) header(name string) string {
	for line := range strings.SplitSeq(r.head, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return value
		}
	}
	return ""
}

// get asks an endpoint by hand: net/http would make this program four times as
// large.
func (f flavour) get(key string) (response, error) {
	conn, err := f.dial()
	if err != nil {
		return response{}, err
	}
	defer func() { _ = conn.Close() }()
	request := "GET " + tokenPath + f.version + "&resource=" + resource + " HTTP/1.1\r\nHost: " + f.host + "\r\nMetadata: true\r\nUser-Agent: story\r\nConnection: close\r\n"
	if key != "" {
		request += "Authorization: Basic " + key + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return response{}, err
	}
	raw, err := io.ReadAll(conn)
	if err != nil {
		return response{}, err
	}
	head, body, ok := bytes.Cut(raw, []byte("\r\n\r\n"))
	fields := strings.Fields(string(head))
	if !ok || len(fields) < 2 {
		return response{}, fmt.Errorf("not an HTTP answer: %q", raw)
	}
	status, err := strconv.Atoi(fields[1])
	return response{status, string(head), body}, err
}

// dial connects; reading and writing give up after 30 s.
func (f flavour) dial() (*os.File, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	limit := syscall.NsecToTimeval(int64(30 * time.Second))
	for _, option := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &limit); err != nil {
			break
		}
	}
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: f.port, Addr: f.address})
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "endpoint"), nil
}

// ask runs story-ask as an account of the test root, with its groups and
// without any privilege.
func ask(who account, args ...string) (answer, error) {
	var a answer
	cmd := exec.Command("/proc/self/exe", append([]string{"story-ask"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return a, fmt.Errorf("ask as %s: %w: %s", who.name, err, strings.TrimSpace(stderr.String()))
	}
	return a, json.Unmarshal(out, &a)
}
