package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/agent/lifecycle"
	"postern/platform"
)

// TokenRequest is the body of POST /v1/token.
type TokenRequest struct {
	Resource string `json:"resource"`
	ClientID string `json:"client_id,omitempty"` // empty: the system-assigned identity
	Refresh  bool   `json:"refresh,omitempty"`
}

// TokenAnswer is a token as the endpoint would give it. It holds a secret.
type TokenAnswer struct {
	AccessToken string    `json:"access_token"`
	ClientID    string    `json:"client_id"`
	Resource    string    `json:"resource"`
	TokenType   string    `json:"token_type"`
	ExpiresOn   time.Time `json:"expires_on"`
	ExpiresIn   int64     `json:"expires_in_s"`
	FromCache   bool      `json:"from_cache"`
}

// ConnectRequest is the body of POST /v1/connect. It holds a secret.
type ConnectRequest struct {
	AuthorityURL string `json:"authority_url,omitempty"` // empty: as the claim says
	RootSHA256   string `json:"root_sha256,omitempty"`   // empty: as the claim says
	Claim        string `json:"claim"`
	Identity     string `json:"identity,omitempty"` // name or client id of one in the configuration; empty: the one the claim is for
	Again        bool   `json:"again,omitempty"`    // reconnect
}

// WorkloadRequest is the body of POST /v1/workload.
type WorkloadRequest struct {
	Name   string `json:"name"`
	Rotate bool   `json:"rotate,omitempty"` // make a new secret although there is one
}

// Workload is the pair of variables of one workload. It holds a secret.
type Workload struct {
	Endpoint string `json:"endpoint"` // IDENTITY_ENDPOINT
	Secret   string `json:"secret"`   // IDENTITY_HEADER
}

// Progress is one line of a long call's answer.
type Progress struct {
	Step  string `json:"step,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Fault *Fault `json:"fault,omitempty"`
}

// Client talks to the agent whose control socket is at Path. The zero value of
// Dial connects to a unix socket. Safe for concurrent use.
type Client struct {
	Path string
	Dial func(ctx context.Context, path string) (net.Conn, error)
}

// ErrNotRunning is wrapped when nothing answers on the socket.
var ErrNotRunning = errors.New("no agent is running")

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx, c.Path)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.Path)
}

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+hostName+path, content)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, c.unreached(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var f Fault
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequest)).Decode(&f); err != nil || f.Message == "" {
		return nil, fmt.Errorf("control: %s %s: %s", method, path, resp.Status)
	}
	if f.ID == notReader || f.ID == notAdministrator {
		f.Message = named(f.Message)
	}
	return nil, &f
}

// closed is a socket that this account cannot reach.
type closed struct {
	path  string
	cause error
}

func (e *closed) Error() string {
	return "this account may not open the control socket " + e.path
}

func (e *closed) Unwrap() error { return e.cause }

// turnedAway is a connection that the agent closed before it answered.
type turnedAway struct{ cause error }

func (e *turnedAway) Error() string {
	return fmt.Sprintf("the agent closed the connection: it stops, or has %d of this account already", maxConnectionsPerPeer)
}

func (e *turnedAway) Unwrap() error { return e.cause }

// named puts our own uid where the agent could see none: the kernel tells it
// nothing of an account that its user namespace does not know.
func named(message string) string {
	rest, nameless := strings.CutPrefix(message, platform.Unknown.String()+" ")
	if uid := os.Getuid(); nameless && uid >= 0 {
		return fmt.Sprintf("uid %d %s", uid, rest)
	}
	return message
}

func (c *Client) unreached(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		f := NewFault(ExitNotRunning, "not-running", "sudo postern run   # or: sudo systemctl start postern",
			"%w: nothing answers on %s", ErrNotRunning, c.Path)
		return f
	case errors.Is(err, fs.ErrPermission):
		return NewFault(ExitPermission, "control-permission", AgainWithSudo, "%w", &closed{c.Path, err})
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return NewFault(ExitFailed, "control-closed", "sleep 2; postern status", "%w", &turnedAway{err})
	}
	return fmt.Errorf("control: %w", err)
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(into)
}

// Status asks for the status that the caller may see.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status", &s)
}

// Wait asks for the status as soon as the state is one of want, at the latest
// after timeout (at most 30 s).
func (c *Client) Wait(ctx context.Context, timeout time.Duration, want ...lifecycle.State) (Status, error) {
	q := url.Values{"timeout": {timeout.String()}}
	for _, w := range want {
		q.Add("for", w.String())
	}
	var s Status
	return s, c.get(ctx, "/v1/wait?"+q.Encode(), &s)
}

// Token asks for a token.
func (c *Client) Token(ctx context.Context, r TokenRequest) (TokenAnswer, error) {
	var a TokenAnswer
	return a, c.post(ctx, "/v1/token", r, &a)
}

// Workload makes the secret of a workload and returns its variables.
func (c *Client) Workload(ctx context.Context, r WorkloadRequest) (Workload, error) {
	var w Workload
	return w, c.post(ctx, "/v1/workload", r, &w)
}

func (c *Client) post(ctx context.Context, path string, body, into any) error {
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(into)
}

// Audit calls f with each record's line.
func (c *Client) Audit(ctx context.Context, from uint64, follow bool, f func(line []byte) error) error {
	path := "/v1/audit?from=" + strconv.FormatUint(from, 10)
	if follow {
		path += "&follow"
	}
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxRequest)
	for lines.Scan() {
		if err := f(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Run makes a long call (connect, disconnect, renew, adopt, reset) and calls
// step with each line of progress. The error is the agent's *Fault. When ctx
// ends the call is given up at once: the agent drops a renewal, whose key waits
// for the next one, and finishes all else that it has begun.
func (c *Client) Run(ctx context.Context, verb string, body any, step func(string)) error {
	resp, err := c.do(ctx, http.MethodPost, "/v1/"+verb, body)
	if r, ok := body.(ConnectRequest); ok && r.Again {
		verb = "reconnect"
	}
	if err != nil {
		return gaveUp(ctx, verb, err)
	}
	defer func() { _ = resp.Body.Close() }()
	d := json.NewDecoder(resp.Body)
	for {
		var p Progress
		if err := d.Decode(&p); err != nil {
			return gaveUp(ctx, verb, NewFault(ExitFailed, "agent-went-away", "postern status", "the agent went away in the middle of %s: %w", verb, err))
		}
		switch {
		case p.Fault != nil:
			return p.Fault
		case p.Done:
			return nil
		case step != nil:
			step(p.Step)
		}
	}
}

// gaveUp words a call whose caller does not wait for its end; err is what else
// it was.
func gaveUp(ctx context.Context, verb string, err error) error {
	switch {
	case ctx.Err() == nil || errors.Is(err, ErrNotRunning):
		return err
	case verb == "renew":
		return ctx.Err()
	}
	return NewFault(ExitInterrupted, "interrupted", "postern status   # shows what became of it",
		"interrupted, but the agent finishes the %s that it has begun", verb)
}
