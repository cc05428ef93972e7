package endpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"postern/agent/credential"
	"postern/agent/token"
)

// exchange is one request with its answer.
type exchange struct {
	*front
	w    http.ResponseWriter
	r    *http.Request
	conn *conn // nil only outside a Server

	status   int
	begun    bool   // the answer is on its way
	code     string // error code that was answered
	note     string
	id       string // correlation id, made when it is needed
	resource string
	clientID string
}

// ServeHTTP answers one request.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := exchange{front: f, w: w, r: r, conn: connOf(r.Context())}
	if f.s.o.Served == nil {
		defer x.rescue()
		x.serve()
		return
	}
	start := time.Now()
	defer func() { x.tell(start) }()
	defer x.rescue()
	x.serve()
}

// rescue turns a bug into a 500 that names the log line with its stack.
func (x *exchange) rescue() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
		panic(p)
	}
	x.s.log.Error("bug: a request ended in a panic", "event", "panic", "flavour", x.flavour, "correlation", x.correlation(),
		"value", fmt.Sprintf("%.256v", p), "stack", string(debug.Stack()))
	if x.begun {
		panic(http.ErrAbortHandler) // half an answer: only closing tells the client
	}
	x.sendError(answer{
		status: http.StatusInternalServerError, code: codeUnknown, close: true,
		text: "A bug in postern; the log has the details under this correlation id. See: journalctl -u postern",
	})
}

// tell reports the answer to Options.Served.
func (x *exchange) tell(start time.Time) {
	note := x.note
	if note == "" {
		note = x.code
	}
	x.s.o.Served(Served{
		Time: start, Took: time.Since(start), Flavour: x.flavour, Listener: x.name, Peer: x.conn.caller(), Agent: x.agent(),
		Method: x.r.Method, Status: x.status, Error: x.code, Resource: x.resource, ClientID: x.clientID, Note: note, Correlation: x.id,
	})
}

// serve is the whole way of a request, in the order of firmware-notes/wire.md.
func (x *exchange) serve() {
	if name, a, refused := run(x.s.guards.early, x.front, x.r); refused {
		x.refuse(name, a)
		return
	}
	path, query, _ := strings.Cut(x.r.RequestURI, "?")
	where, leaf := x.route(path)
	if where == nil {
		x.sendError(answer{
			status: http.StatusNotFound, code: codeNotFound, close: hasBody(x.r),
			text: "Nothing is served at this path. See: postern env",
		})
		return
	}
	if x.r.Method != http.MethodGet {
		x.sendError(answer{
			status: http.StatusMethodNotAllowed, code: codeNoMethod, close: hasBody(x.r),
			text: "Only GET is answered here",
		})
		return
	}
	if name, a, refused := run(x.s.guards.late, x.front, x.r); refused {
		x.refuse(name, a)
		return
	}
	where(x, query, leaf)
}

// refuse answers for a guard. A probe without Metadata is every SDK's way of
// looking for us and worth no log line.
func (x *exchange) refuse(guard string, a answer) {
	x.sendError(a)
	if guard != "metadata" {
		x.deny("token-denied", "guard: "+guard)
	}
}

// deny reports a refusal that the Broker does not see.
func (x *exchange) deny(event, reason string) {
	x.s.denials.report(x.s, Denial{
		Event: event, Reason: reason, Flavour: x.flavour, Listener: x.name, Peer: x.conn.caller(),
		Agent: x.agent(), Correlation: x.id,
	})
}

// agent is the User-Agent as kept for the audit.
func (x *exchange) agent() string {
	const most = 256
	if v := x.r.Header["User-Agent"]; len(v) > 0 {
		return v[0][:min(len(v[0]), most)]
	}
	return ""
}

// correlation is the client's request id if it is a GUID, else one of ours.
func (x *exchange) correlation() string {
	if x.id != "" {
		return x.id
	}
	if v := x.r.Header["X-Ms-Client-Request-Id"]; len(v) == 1 && isGUID(v[0]) {
		x.id = v[0]
		return x.id
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	x.id = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return x.id
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash {
			if s[i] != '-' {
				return false
			}
		} else if unhex(s[i]) > 15 {
			return false
		}
	}
	return true
}

// query parses what a token request asks for; false if it was answered 400.
func (x *exchange) query(raw string) (params, bool) {
	p, problem := parseQuery(raw)
	if problem == "" {
		problem = p.token(raw)
	}
	if problem != "" {
		x.sendError(answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: "The query is refused: " + problem})
		return p, false
	}
	x.resource = p.resource
	return p, true
}

// fetch gets the token that p asks for. It is the only way to the Broker.
func (x *exchange) fetch(p params, caller token.Caller) (token.Token, error) {
	tokens := x.s.tokens.Load()
	if tokens == nil {
		return token.Token{}, errNotOpen
	}
	standing, err := (*tokens).Resolve(p.selector)
	if err != nil {
		return token.Token{}, err
	}
	x.clientID = standing.Identity.ClientID
	t, err := (*tokens).Token(x.r.Context(), token.Request{
		ClientID: standing.Identity.ClientID, Resource: p.resource, Caller: caller,
		Flavour: string(x.flavour), RefreshDigest: p.refresh,
	})
	if err == nil && (t.Value.Empty() || t.Remaining <= 0) {
		return t, errNoToken
	}
	return t, err
}

// caller is the account behind the connection as the Broker knows it.
func (x *exchange) caller() token.Caller {
	return token.Caller{Peer: x.conn.caller(), Listener: x.name, Agent: x.agent()}
}

// succeed writes the 200. It is the only place that does so for a token.
func (x *exchange) succeed(t *token.Token, selector credential.Selector) {
	x.note = "fetched"
	if t.FromCache {
		x.note = "cache"
	}
	b, _ := buffers.Get().(*[]byte)
	defer freeBuffer(b)
	*b = appendToken(*b, t, selector)
	x.send(http.StatusOK, valueJSON, *b)
}

// fail answers for an error of the Broker.
func (x *exchange) fail(err error) {
	if errors.Is(err, context.Canceled) && x.r.Context().Err() != nil {
		x.note = "gone"
		panic(http.ErrAbortHandler) // the caller hung up: nobody is left to answer
	}
	x.sendError(answerTo(err, x.correlation(), x.s.log))
}
