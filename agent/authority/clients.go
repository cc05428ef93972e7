package authority

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// maxClients bounds what Clients keeps: 64 identities, each with a current and
// a previous certificate.
const maxClients = 128

// Clients hands out one client for each client certificate, because a
// connection that is kept alive goes on speaking for the certificate it was
// made with. Safe for concurrent use.
type Clients struct {
	config Config

	mu   sync.Mutex
	kept map[clientKey]*keptClient
	turn uint64 // counts uses; the client with the smallest goes first
}

type clientKey struct {
	leaf  [sha256.Size]byte
	key   [sha256.Size]byte // of the signer: a certificate is worth nothing with another's key
	hosts string
}

type keptClient struct {
	client *http.Client
	used   uint64
}

// NewClients returns clients of one configuration; its Certificate and Hosts
// are not used.
func NewClients(c Config) *Clients {
	c.Certificate, c.Hosts = nil, nil
	return &Clients{config: c, kept: map[clientKey]*keptClient{}}
}

// Plain returns the client that has no certificate.
func (c *Clients) Plain() *http.Client { return c.client(clientKey{}, nil, nil) }

// With returns the client that offers cert to these hosts ("host:port", see
// Address) and to no other.
func (c *Clients) With(cert *tls.Certificate, hosts ...string) *http.Client {
	if cert == nil || len(cert.Certificate) == 0 {
		return c.Plain()
	}
	key := clientKey{leaf: sha256.Sum256(cert.Certificate[0]), hosts: strings.Join(hosts, " ")}
	if signer, ok := cert.PrivateKey.(crypto.Signer); ok {
		if der, err := x509.MarshalPKIXPublicKey(signer.Public()); err == nil {
			key.key = sha256.Sum256(der)
		}
	}
	return c.client(key, cert, hosts)
}

func (c *Clients) client(key clientKey, cert *tls.Certificate, hosts []string) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn++
	if k := c.kept[key]; k != nil {
		k.used = c.turn
		return k.client
	}
	if len(c.kept) >= maxClients {
		c.dropOldest()
	}
	config := c.config
	config.Certificate, config.Hosts = cert, slices.Clone(hosts)
	client := NewClient(config)
	c.kept[key] = &keptClient{client: client, used: c.turn}
	return client
}

// dropOldest forgets the client that was not used for longest. A call that
// still runs on it ends in its own time.
func (c *Clients) dropOldest() {
	var oldest clientKey
	least := c.turn + 1
	for key, k := range c.kept {
		if k.used < least {
			oldest, least = key, k.used
		}
	}
	c.kept[oldest].client.CloseIdleConnections()
	delete(c.kept, oldest)
}

// CloseIdleConnections closes what is not in use, of every client.
func (c *Clients) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.kept {
		k.client.CloseIdleConnections()
	}
}

// Bootstrap fetches url from a server of whose authority nothing is known yet
// but a digest: what it answers is worth something only if it matches that
// digest, which the caller checks. The connection is verified for name, dates
// and use against whatever chain the server itself presents, which proves
// nothing, so nothing secret may be in the URL and its Date is not heard.
// c's roots and certificate are not used. Errors as of Do.
func Bootstrap(ctx context.Context, c Config, url, op string, limit int64) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, failed(op, &Fault{Stage: StageConnect, Host: "the authority", Reason: "its address is not a URL", Err: err})
	}
	c.Certificate, c.Hosts, c.System, c.Roots, c.blind = nil, nil, false, nil, true
	shown, err := presented(ctx, c, Address(req.URL))
	if err != nil {
		return nil, failed(op, faultOf(req.URL.Host, err))
	}
	c.Roots = x509.NewCertPool()
	c.Roots.AddCert(shown[len(shown)-1])
	client := NewClient(c)
	defer client.CloseIdleConnections()
	return Do(client, req, op, limit)
}

// presented returns the chain that a server shows, by a handshake in which it
// is not believed.
func presented(ctx context.Context, c Config, address string) ([]*x509.Certificate, error) {
	if address == "" {
		return nil, &Fault{Stage: StageConnect, Host: address, Reason: "the address is not https"}
	}
	r := &route{config: c}
	conn, err := r.handshake(ctx, address, c.Clock.VerifyTime())
	if err == nil {
		_ = conn.Close() // cannot happen: no root was believed
		return nil, &Fault{Stage: StageTLS, Host: address, Reason: "the server's chain was believed without a root"}
	}
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0 {
		return refused.UnverifiedCertificates, nil
	}
	return nil, err
}
