// Package endpoint is the HTTP server on localhost from which programs on this
// device get their tokens. It speaks three flavours (firmware-notes/wire.md):
// Arc, with a challenge file between two requests; IMDS, with one request; and
// App Service, one listener for each workload that holds a secret.
//
// A request passes the guard before anything else is looked at; a refused one
// makes no file and costs next to nothing. What is left is a token.Request, and
// the answer of the Broker, or its error, is encoded once. The package keeps no
// token, decides no grant and follows no state: that is the Broker's.
//
// net/http does the parsing. Whatever it accepts and this endpoint must not
// (absolute-form, HTTP/1.0 without Host, PRI) is refused here; its ServeMux,
// which would redirect, is not used.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"postern/agent/challenge"
	"postern/agent/credential"
	"postern/agent/token"
	"postern/platform"
)

// Flavour is a dialect of the token request. Its values stand in logs, audit
// and metrics.
type Flavour string

// The flavours.
const (
	Arc        Flavour = "arc"
	IMDS       Flavour = "imds"
	AppService Flavour = "appservice"
)

// Tokens is what the endpoint asks of the Broker. *token.Broker satisfies it.
type Tokens interface {
	// Resolve finds the identity that a selector means. On a device without
	// identities it returns a Standing without one and no error, and Token then
	// says why there is none.
	Resolve(credential.Selector) (credential.Standing, error)
	// Token returns a token with life left, or an error, within 20 s. When ctx
	// ends, because the caller hung up, only this call ends.
	Token(context.Context, token.Request) (token.Token, error)
}

// Challenges is what the Arc flavour asks of the Keeper. *challenge.Keeper
// satisfies it.
type Challenges interface {
	Mint(platform.Peer) (path string, err error)
	Redeem(platform.Peer, string) (*challenge.Ticket, error)
}

// Options configure a Server.
type Options struct {
	// Tokens may be nil while the store is not open yet: every token request is
	// then answered 503 until SetTokens.
	Tokens Tokens
	// Keeper makes the challenges; nil if there is no Arc listener.
	Keeper Challenges
	// Peer says who is at the other end; asked once for each connection, when
	// it is accepted. nil: everybody is unknown.
	Peer func(net.Conn) platform.Peer
	// MayIMDS is the only gate of the IMDS flavour. It is asked at most once a
	// second for each connection. nil: nobody may.
	MayIMDS func(platform.Peer) bool
	// Instance is what the instance documents show; nil shows empty ones.
	Instance func() Instance
	// Workloads are the holders of a secret, for App Service listeners.
	Workloads []*Workload
	// StateDir is cut out of every description: firmware-notes/wire.md forbids its
	// paths there.
	StateDir string
	// Connections bounds what is served at once; 0 means 128, more is not
	// possible. Lower it where few descriptors are allowed: 16 must remain for
	// store, upstream and watcher. One peer gets a quarter of it.
	Connections int
	// Log may be nil.
	Log *slog.Logger
	// Audit is told of refusals that the Broker does not see, at most once a
	// minute for each caller and reason. It is called while the caller waits;
	// nil is a no-op.
	Audit func(Denial)
	// Served is told of each answer; nil is a no-op and costs nothing.
	Served func(Served)
}

// Denial is a refusal for the audit.
type Denial struct {
	Event       string // "challenge-refused", "token-denied"
	Reason      string // fixed words: "guard: browser", "challenge: expired", "imds not allowed"
	Flavour     Flavour
	Listener    string
	Peer        platform.Peer
	Agent       string // User-Agent, at most 256 bytes, not cleaned
	Correlation string
	Count       int // equal refusals since the last report of this caller and reason, this one included
}

// Served is one answer, for those who print or count them.
type Served struct {
	Time        time.Time // when the request was read, as the machine's clock says
	Took        time.Duration
	Flavour     Flavour
	Listener    string
	Peer        platform.Peer
	Agent       string // User-Agent, at most 256 bytes, not cleaned
	Method      string
	Status      int
	Error       string // the error code of the body; empty for success and for a challenge
	Resource    string // as asked; empty if the request did not get that far
	ClientID    string // of the identity that was found
	Note        string // "cache", "fetched", "challenge", or the error code
	Correlation string // of an error body
}

// Server answers on any number of listeners with common limits. All methods
// are safe for concurrent use.
type Server struct {
	o       Options
	log     *slog.Logger
	tokens  atomic.Pointer[Tokens]
	limits  *limits
	denials *denials
	guards  guards
}

// New returns a Server. The error is for options that contradict each other.
func New(o Options) (*Server, error) {
	s := &Server{o: o, log: o.Log, guards: everyGuard()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	seen := make(map[string]bool)
	for _, w := range o.Workloads {
		if w == nil || w.name == "" || seen[w.name] {
			return nil, errors.New("endpoint: a workload has no name, or the name of another")
		}
		seen[w.name] = true
	}
	s.limits = newLimits(o.Connections)
	s.denials = newDenials()
	if o.Tokens != nil {
		s.SetTokens(o.Tokens)
	}
	return s, nil
}

// SetTokens says where tokens come from, once the store is open.
func (s *Server) SetTokens(t Tokens) { s.tokens.Store(&t) }

// Connections is how many connections are being served.
func (s *Server) Connections() int { return s.limits.open() }

// Listener is a socket to answer on.
type Listener struct {
	net.Listener
	Flavour Flavour
	// Hosts are names allowed in Host beside the fixed ones, in lower case and
	// without a port; addresses without brackets.
	Hosts []string
	// Workload names the holder of the secret; App Service only.
	Workload string
}

// workload finds a workload by name.
func (s *Server) workload(name string) (*Workload, error) {
	for _, w := range s.o.Workloads {
		if w.name == name {
			return w, nil
		}
	}
	return nil, fmt.Errorf("endpoint: no workload is called %q", name)
}
