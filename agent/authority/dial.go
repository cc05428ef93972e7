package authority

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// route makes connections. net/http could dial through a proxy by itself, but
// would neither say which of the two failed nor which TLS check, nor know for
// which host a client certificate is asked.
type route struct{ config Config }

// dialTLS connects to address ("host:port"), through the proxy if there is one,
// and verifies the server.
func (r *route) dialTLS(ctx context.Context, _, address string) (net.Conn, error) {
	clock := r.config.Clock
	if r.config.System && !clock.Now().Trusted {
		return nil, &Fault{
			Stage: StageTLS, Host: address, Clock: true,
			Reason: "the clock cannot be believed, and certificates of public authorities cannot be checked without it",
		}
	}
	at := clock.VerifyTime()
	conn, err := r.handshake(ctx, address, at)
	if again, ok := r.secondChance(err, at); ok {
		return r.handshake(ctx, address, again)
	}
	return conn, err
}

// secondChance is for a device whose clock is wrong and which could otherwise
// never learn the time: a chain that failed for its dates alone is tried at a
// time that would suit it, if that time may be. Roots are pinned then.
func (r *route) secondChance(err error, tried time.Time) (time.Time, bool) {
	var fault *Fault
	var failed *tls.CertificateVerificationError
	if !errors.As(err, &fault) || !fault.dates || !errors.As(err, &failed) || r.config.System || r.config.Clock.Now().Trusted {
		return time.Time{}, false
	}
	var begins []time.Time
	for _, c := range failed.UnverifiedCertificates {
		begins = append(begins, c.NotBefore)
	}
	at := r.config.Clock.VerifyAt(begins...)
	return at, !at.Equal(tried)
}

func (r *route) handshake(ctx context.Context, address string, at time.Time) (net.Conn, error) {
	raw, err := r.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	conn := tls.Client(raw, r.tlsConfig(address, at))
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error is the news
		return nil, tlsFault(address, err, at, r.config.Clock.Now().Trusted)
	}
	return conn, nil
}

// dial makes the connection that TLS will run over.
func (r *route) dial(ctx context.Context, address string) (net.Conn, error) {
	proxy := r.config.Proxy
	if proxy == nil {
		conn, err := r.tcp(ctx, address)
		if err != nil {
			return nil, &Fault{Stage: StageConnect, Host: address, Reason: connectReason(err), Err: err}
		}
		return conn, nil
	}
	if proxy.Scheme != "http" || proxy.Host == "" || proxy.User != nil {
		return nil, &Fault{Stage: StageProxy, Host: proxy.Redacted(), Reason: "a proxy is written http://host:port"}
	}
	via := proxyAddress(proxy)
	conn, err := r.tcp(ctx, via)
	if err != nil {
		return nil, &Fault{Stage: StageProxy, Host: via, Reason: connectReason(err), Err: err}
	}
	if err := r.askProxy(ctx, conn, address); err != nil {
		_ = conn.Close() // the proxy's refusal is the news
		return nil, &Fault{Stage: StageProxy, Host: via, Reason: Clean(err.Error(), MaxText), Err: err}
	}
	return conn, nil
}

func (r *route) tcp(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	defer cancel()
	dial := r.config.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext // FallbackDelay 0 is 300 ms
	}
	return dial(ctx, "tcp", address)
}

func proxyAddress(proxy *url.URL) string {
	port := proxy.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}

// askProxy has the proxy connect conn to address (RFC 9110 section 9.3.6). The
// device's own certificate and assertions are never shown to it.
func (r *route) askProxy(ctx context.Context, conn net.Conn, address string) error {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a read that waits
	defer stop()

	request := "CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if r.config.ProxyAuth != nil {
		if auth := r.config.ProxyAuth(); auth != "" {
			request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(auth)) + "\r\n"
		}
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return proxySilence(ctx, err)
	}
	answer := bufio.NewReader(io.LimitReader(conn, HeaderLimit))
	resp, err := http.ReadResponse(answer, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it is the connection, which goes on or is closed
	switch {
	case err != nil:
		return proxySilence(ctx, err)
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return errors.New("it asks for a user and password (407): configure the proxy's credentials file, or correct it")
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("it refuses to connect us to %s: %s", address, Clean(resp.Status, 64))
	case answer.Buffered() > 0:
		return errors.New("it sent data before TLS began")
	case !stop():
		return proxySilence(ctx, ctx.Err())
	}
	return nil
}

// proxySilence is an answer to CONNECT that did not come.
func proxySilence(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer to CONNECT in time: %w", ctx.Err())
	}
	return fmt.Errorf("no answer to CONNECT: %w", errors.Join(ctx.Err(), err))
}

// weakKey is a certificate that everything else speaks for.
type weakKey struct{ what string }

func (e *weakKey) Error() string { return "a certificate of the server has a weak key: " + e.what }

// refuseWeakKeys wants one verified chain whose keys below the root are strong.
// A root is compared, not computed with: its key is the operator's choice.
func refuseWeakKeys(state tls.ConnectionState) error {
	var weak error = &weakKey{"no chain was verified"}
	for _, chain := range state.VerifiedChains {
		if weak = weakestOf(chain); weak == nil {
			return nil
		}
	}
	return weak
}

func weakestOf(chain []*x509.Certificate) error {
	below := chain
	if len(chain) > 1 {
		below = chain[:len(chain)-1]
	}
	for _, c := range below {
		switch key := c.PublicKey.(type) {
		case *rsa.PublicKey:
			if bits := key.N.BitLen(); bits < 2048 {
				return &weakKey{fmt.Sprintf("RSA of %d bits", bits)}
			}
		case *ecdsa.PublicKey:
			if key.Curve == elliptic.P224() {
				return &weakKey{"ECDSA on P-224"}
			}
		case ed25519.PublicKey:
		default:
			return &weakKey{fmt.Sprintf("%T", key)}
		}
	}
	return nil
}
