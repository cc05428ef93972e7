package site

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve answers on l, always with TLS, until ctx ends or l fails; then it lets
// answers in flight finish, at most 5 s, and returns nil, or why l failed. It
// closes l. More than one listener may be served at once.
func (a *Authority) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           a.Handler(),
		ReadHeaderTimeout: maxTime,
		ReadTimeout:       maxTime,
		WriteTimeout:      2 * maxTime,
		IdleTimeout:       maxIdle,
		MaxHeaderBytes:    maxHeader - headerSlack,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),      // anybody on the network can cause these
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only
	}
	return serve(ctx, server, tls.NewListener(limit(l, maxConnections), a.TLSConfig()))
}

// serve runs server until ctx ends.
func serve(ctx context.Context, server *http.Server, l net.Listener) error {
	const grace = 5 * time.Second
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-ended:
			return
		}
		left, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if err := server.Shutdown(left); err != nil {
			_ = server.Close()
		}
	}()
	err := server.Serve(l)
	close(ended)
	<-stopped
	if ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// limit makes Accept wait while n connections are open: newcomers stay in the
// backlog, and nothing that works is dropped.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type slotted struct {
	net.Conn
	free func()
}

func (c *slotted) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// Handler answers the whole of the authority's HTTP. It must be served with
// TLSConfig: who a caller is comes from the connection.
func (a *Authority) Handler() http.Handler { return a.handler }

func (a *Authority) routes() http.Handler {
	mux := http.NewServeMux()
	for _, version := range []string{"", "/1.0"} {
		mux.HandleFunc("GET "+version+"/health", a.serveHealth)
		mux.HandleFunc("GET "+version+"/version", a.serveVersion)
		mux.HandleFunc("GET "+version+"/root/{sha}", a.serveRoot)
		mux.HandleFunc("GET "+version+"/roots.pem", a.serveRootsPEM)
		mux.HandleFunc("GET "+version+"/provisioners", a.serveProvisioners)
		mux.HandleFunc("POST "+version+"/sign", a.timely(a.serveSign))
		mux.HandleFunc("POST "+version+"/renew", a.timely(a.serveRenew))
		mux.HandleFunc("POST "+version+"/rekey", a.timely(a.serveRekey))
		mux.HandleFunc("POST "+version+"/revoke", a.serveRevoke)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", a.serveDiscovery)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", a.serveDiscovery)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", a.serveDiscovery)
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", a.serveKeys)
	mux.HandleFunc("/{tenant}/oauth2/v2.0/authorize", a.serveAuthorize)
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", a.timely(a.serveToken))
	mux.HandleFunc("GET /v1/machines/self/identities", a.serveAssignments)
	return a.edge(mux)
}

// edge is what every answer has in common: the authority's own Date, which is
// how a device with a wrong clock finds out; a bounded body; no caching unless
// said otherwise; and an answer even if the program has a bug.
func (a *Authority) edge(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Date", a.now().UTC().Format(http.TimeFormat))
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares like this
				panic(p)
			}
			a.log.Error("bug: a request ended in a panic", "event", "site-panic", "path", cut(r.URL.Path, 100))
			stepError{status: http.StatusInternalServerError}.write(w)
		}()
		if r.ContentLength > maxBody {
			stepError{status: http.StatusRequestEntityTooLarge}.write(w)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// timely answers 503 while the clock is before the birth of the authority: a
// board that booted in 1970 would issue what is over when it arrives, and find
// every certificate not valid yet. Whoever waits is served when the time comes.
func (a *Authority) timely(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !a.now().Before(a.created.Add(-clockTolerance)) {
			next(w, r)
			return
		}
		w.Header().Set("Retry-After", "60")
		stepError{
			status: http.StatusServiceUnavailable, message: "The clock of the certificate authority is wrong; try again later.",
		}.write(w)
	}
}
