package site

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/store"
)

type rsaKey = *rsa.PrivateKey

// Authority is a running site authority. All methods are safe for concurrent
// use. Methods that change something have committed when they return nil.
type Authority struct {
	db      *store.DB
	log     *slog.Logger
	now     func() time.Time
	opts    Options
	base    string   // URL without a trailing slash
	names   []string // DNS names and addresses of the server certificate, sorted
	tenant  string
	created time.Time // of the site
	root    issuer
	claims  issuer // signs one-time tokens; has no certificate
	kid     string // of claims.key: RFC 7638 thumbprint

	auditRecords uint64 // bounds of the ring
	auditBytes   int64
	committed    func()

	mu           sync.Mutex
	intermediate []issuer // newest last
	server       *serverCertificate
	contacts     map[string]time.Time // vmId -> last contact
	flushed      time.Time            // when they were written
	gate         *gate
	signing      *signer
	replays      map[string]int // client id -> assertion ids kept
	denials      *denials

	handler http.Handler
}

// Info says where an authority is and how to trust it.
type Info struct {
	URL           string    `json:"url"`
	TenantID      string    `json:"tenant_id"`
	Issuer        string    `json:"issuer"` // of access tokens
	TokenEndpoint string    `json:"token_endpoint"`
	KeysURL       string    `json:"jwks_uri"`
	RootPEM       string    `json:"root_pem"`
	RootSHA256    string    `json:"root_sha256"` // lower-case hex over the DER
	Names         []string  `json:"names"`       // of the server certificate
	Created       time.Time `json:"created"`
	RootUntil     time.Time `json:"root_until"`
	Machines      int       `json:"machines"`
	Identities    int       `json:"identities"` // of both kinds, deleted ones not counted
	Deleted       int       `json:"deleted"`
	Resources     int       `json:"resources"`
	AuditRecords  uint64    `json:"audit_records"`
	Overwritten   uint64    `json:"audit_overwritten"`
}

// Open opens the authority whose state is in dir, which must exist, and makes
// it if there is none. It listens to nothing; see Serve. Errors: those of
// store; a key that does not open the database; a URL that is not https.
func Open(ctx context.Context, dir string, opts Options) (*Authority, error) {
	a, err := newAuthority(opts)
	if err != nil {
		return nil, err
	}
	if err := a.openLedger(ctx, dir); err != nil {
		return nil, err
	}
	if err := a.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("authority in %s: %w", dir, err), a.db.Close())
	}
	a.handler = a.routes()
	return a, nil
}

func newAuthority(opts Options) (*Authority, error) {
	u, err := url.Parse(opts.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("authority url %q: %w: want https://host[:port]", cut(opts.URL, 200), ErrInvalid)
	}
	if opts.TokenType == "" {
		opts.TokenType = "JWT"
	}
	if opts.TokenType != "JWT" && opts.TokenType != "at+jwt" {
		return nil, fmt.Errorf("token type %q: %w: want JWT or at+jwt", cut(opts.TokenType, 20), ErrInvalid)
	}
	if opts.CertificateLife == 0 {
		opts.CertificateLife = leafLife
	}
	if opts.CertificateLife < leafLifeShortest || opts.CertificateLife > leafLife {
		return nil, fmt.Errorf("certificate life %s: %w: want %s to %s", opts.CertificateLife, ErrInvalid, leafLifeShortest, leafLife)
	}
	a := &Authority{
		opts: opts, log: opts.Log, now: opts.Now, committed: opts.committed,
		base: "https://" + u.Host, names: serverNames(u.Hostname(), opts.Names),
		contacts: map[string]time.Time{}, gate: newGate(tokensPerSecond, tokensBurst),
		replays: map[string]int{}, denials: newDenials(),
		auditRecords: maxAuditRecords, auditBytes: maxAuditBytes,
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	return a, nil
}

func serverNames(host string, more []string) []string {
	names := []string{"127.0.0.1", "::1", "localhost", strings.ToLower(host)}
	for _, n := range more {
		if ip := net.ParseIP(n); ip != nil {
			n = ip.String()
		}
		names = append(names, strings.ToLower(n))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (a *Authority) openLedger(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "authority.key")
	key, err := store.LoadKey(path, a.opts.Store)
	database := filepath.Join(dir, "authority.db")
	if errors.Is(err, store.ErrNotFound) {
		// A new key beside an old database would make every value unreadable for good.
		if _, there := os.Lstat(database); !errors.Is(there, fs.ErrNotExist) {
			return fmt.Errorf("%s is there, but its key %s is not: restore both from one backup", database, path)
		}
		key, err = store.CreateKey(path, a.opts.Store)
	}
	if err != nil {
		return fmt.Errorf("authority key: %w", err)
	}
	a.db, err = store.Open(ctx, database, key, a.opts.Store)
	if err != nil {
		return fmt.Errorf("authority database: %w", err)
	}
	return nil
}

// Close closes the database. The Authority must not be used afterwards.
func (a *Authority) Close() error {
	err := a.flushContacts(context.Background())
	return errors.Join(err, a.db.Close())
}

// RootPEM is the root certificate that devices pin.
func (a *Authority) RootPEM() string { return certPEM(a.root.certificate) }

// RootSHA256 is the lower-case hex SHA-256 of the root's DER.
func (a *Authority) RootSHA256() string { return fingerprint(a.root.certificate) }

// TenantID is the GUID of the site, which is also the subscription in resource ids.
func (a *Authority) TenantID() string { return a.tenant }

func (a *Authority) issuerURL() string { return a.base + "/" + a.tenant + "/v2.0" }
func (a *Authority) tokenURL() string  { return a.base + "/" + a.tenant + "/oauth2/v2.0/token" }
func (a *Authority) keysURL() string   { return a.base + "/" + a.tenant + "/discovery/v2.0/keys" }

// Info describes the authority as it is now.
func (a *Authority) Info(context.Context) (Info, error) {
	i := Info{
		URL: a.base, TenantID: a.tenant, Issuer: a.issuerURL(), TokenEndpoint: a.tokenURL(), KeysURL: a.keysURL(),
		RootPEM: a.RootPEM(), RootSHA256: a.RootSHA256(), Names: a.names, RootUntil: a.root.certificate.NotAfter,
	}
	err := a.view(func(t *tx) error {
		s, err := load[siteRecord](t, bucketSite, "authority")
		if err != nil {
			return err
		}
		i.Created = s.Created
		head, err := load[auditHead](t, bucketAuditHead, "head")
		if err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		i.AuditRecords, i.Overwritten = head.Next-head.First, head.Overwritten
		return t.count(&i)
	})
	return i, err
}

func (t *tx) count(i *Info) error {
	return errors.Join(
		each(t, bucketMachine, func(string, machineRecord) error { i.Machines++; return nil }),
		each(t, bucketResource, func(string, Resource) error { i.Resources++; return nil }),
		each(t, bucketIdentity, func(_ string, r identityRecord) error {
			if r.Deleted.IsZero() {
				i.Identities++
			} else {
				i.Deleted++
			}
			return nil
		}),
	)
}

// roots is what client certificates are verified against: the intermediates
// too, because some clients send only their leaf.
func (a *Authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root.certificate)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range a.intermediate {
		pool.AddCert(i.certificate)
	}
	return pool
}
