package authority

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"postern/agent/lifecycle"
)

// Time and size limits of one call (firmware-notes/limits.md).
const (
	ConnectTimeout   = 5 * time.Second  // name look-up and TCP connection
	HandshakeTimeout = 5 * time.Second  // TLS; and the proxy's answer to CONNECT
	HeaderTimeout    = 10 * time.Second // from the request's end to the answer's header
	CallTimeout      = 20 * time.Second // the whole call, body included

	HeaderLimit      = 32 << 10  // answer header; net/http would take 10 MB
	BodyLimit        = 64 << 10  // token, discovery, error, certificate answers
	AssignmentsLimit = 256 << 10 // the list of identities
)

// idleTimeout keeps a connection for the calls that follow at once, and no
// longer: an edge device should not hold connections that it does not use.
const idleTimeout = 15 * time.Second

// Config says whom a client believes and how it gets there. It is a value; a
// client keeps its own copy.
type Config struct {
	// Clock gives the time for chain checks and hears the Date of every answer
	// that came over verified TLS. Required.
	Clock *lifecycle.Clock

	// Roots are believed alone. With nil roots nobody is believed.
	Roots *x509.CertPool
	// System believes the system's roots instead of Roots. Under an untrusted
	// clock such a client refuses to connect: the public Web PKI cannot be
	// checked without the time (firmware-notes/time.md).
	System bool

	// Certificate is offered to servers that ask for one, but only to Hosts;
	// nil offers none. A connection keeps the certificate it was made with, so
	// a client belongs to one certificate for life.
	Certificate *tls.Certificate
	// Hosts are "host:port" as Address gives it.
	Hosts []string

	// Dial makes the connection; nil is TCP with Happy Eyeballs (RFC 6555: the
	// other family is tried after 300 ms).
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Proxy is "http://host:port" of a proxy that is asked to CONNECT; nil for none.
	Proxy *url.URL
	// ProxyAuth returns "user:password" for the proxy, read anew for each
	// connection; nil or empty for none.
	ProxyAuth func() string

	// blind keeps Dates from the clock: the server is nobody we know.
	blind bool
}

// NewClient returns a client that keeps the rules of the package comment. It is
// the only place where a client's TLS is configured. Close idle connections
// when it is dropped. It panics if there is no clock.
func NewClient(c Config) *http.Client {
	if c.Clock == nil {
		panic("authority: a client needs a clock")
	}
	c.Hosts = slices.Clone(c.Hosts)
	route := &route{config: c}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Timeout:       CallTimeout,
		CheckRedirect: refuseRedirect,
		Transport: &guard{clock: c.Clock, blind: c.blind, next: &http.Transport{
			DialContext:            refusePlain,
			DialTLSContext:         route.dialTLS, // also through a proxy: see dial.go
			Protocols:              protocols,
			DisableCompression:     true,
			ResponseHeaderTimeout:  HeaderTimeout,
			MaxResponseHeaderBytes: HeaderLimit,
			IdleConnTimeout:        idleTimeout,
			MaxIdleConnsPerHost:    2,
		}},
	}
}

// tlsConfig is the one tls.Config of all clients. at is the time at which the
// chain is checked.
func (r *route) tlsConfig(address string, at time.Time) *tls.Config {
	roots := r.config.Roots
	if r.config.System {
		roots = nil // which means the system's
	} else if roots == nil {
		roots = x509.NewCertPool()
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    roots,
		ServerName: hostname(address),
		NextProtos: []string{"http/1.1"},
		Time:       func() time.Time { return at },
		// Session tickets stay off: there is no ClientSessionCache, so each
		// connection verifies anew, with the roots and the clock of now.
		VerifyConnection: refuseWeakKeys,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			// A host that is not the authority learns nothing about the device,
			// not even its certificate (TestClientCertificateStaysWithItsHosts).
			if r.config.Certificate == nil || !slices.Contains(r.config.Hosts, address) {
				return &tls.Certificate{}, nil
			}
			return r.config.Certificate, nil
		},
	}
}

// Address is the "host:port" to which a client connects for an https URL;
// empty for any other URL.
func Address(u *url.URL) string {
	if u == nil || u.Scheme != "https" || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func hostname(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// guard stands before the transport: what leaves is https, what comes back is
// plain, and its Date is heard.
type guard struct {
	next  *http.Transport
	clock *lifecycle.Clock
	blind bool
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		if req.Body != nil {
			_ = req.Body.Close() // the interface's duty; nothing was read
		}
		return nil, &Fault{Stage: StageConnect, Host: req.URL.Host, Reason: "the address is not https"}
	}
	asked := g.clock.Now()
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	// An answer that lay in the socket while the device slept has a Date of
	// then; heard as now, it would make a right clock look wrong by days
	// (TestDateOfAnAnswerThatWaitedThroughASuspendIsNotHeard).
	if heard := g.clock.Now(); !g.blind && heard.BootID == asked.BootID && heard.Boot-asked.Boot <= 2*CallTimeout {
		g.clock.Observe(dateOf(resp.Header))
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		_ = resp.Body.Close() // it is not read
		return nil, &Fault{Stage: StageAnswer, Host: req.URL.Host, Reason: "the answer is encoded (" + Clean(enc, 32) + "), which was not asked for"}
	}
	return resp, nil
}

// CloseIdleConnections makes http.Client.CloseIdleConnections work.
func (g *guard) CloseIdleConnections() { g.next.CloseIdleConnections() }

// refuseRedirect names the host that we were sent to and goes nowhere: the
// request carries an assertion or stands for a certificate.
func refuseRedirect(req *http.Request, via []*http.Request) error {
	to := req.URL.Scheme + "://" + req.URL.Host
	if req.URL.Host == "" {
		to = req.URL.Scheme + ":"
	}
	return &Fault{
		Stage: StageRedirect, Host: via[len(via)-1].URL.Host,
		Reason: "sends us on to " + Clean(to, MaxText) + "; redirects are not followed",
	}
}

// refusePlain is the transport's way to a host without TLS; guard lets nothing come here.
func refusePlain(_ context.Context, _, address string) (net.Conn, error) {
	return nil, &Fault{Stage: StageConnect, Host: address, Reason: "the address is not https"}
}
