package site

import (
	"log/slog"
	"net"
	"time"

	"postern/store"
)

// Options are what Open needs to know. Only URL is required.
type Options struct {
	// URL is the base URL under which devices reach the authority, https, host
	// and optional port, no path: "https://127.0.0.1:8443".
	URL string
	// Names are further DNS names and IP addresses that the server certificate
	// carries. The loopback addresses, "localhost" and URL's host are always in it.
	Names []string
	// Store says how files are opened.
	Store store.Options
	// Now is the wall clock; nil means time.Now. A simulation gives its own.
	Now func() time.Time
	// Log gets one line a decision and what goes wrong; nil discards.
	Log *slog.Logger
	// Administrator says who holds the other end of a connection to the admin
	// socket ("uid:0"), and whether that account may administer. nil: nobody may.
	Administrator func(net.Conn) (principal string, ok bool)
	// TokenType is the "typ" of access tokens: "JWT" (the default) or "at+jwt" (RFC 9068).
	TokenType string
	// CertificateLife is how long the certificates of devices are good, and the
	// longest that one may ask for: 1 minute to 90 days. Zero means 90 days. It
	// counts from the issue; NotBefore is a minute earlier. A device that is cut
	// off lasts no longer than this, so a short one is for plants that are never
	// cut off, and for trials.
	CertificateLife time.Duration
	// Version is what GET /version answers.
	Version string
	// Built is when this program was built. A new authority is not made while
	// the clock says an earlier time: its root would end before it is needed.
	// Zero: any time is believed.
	Built time.Time

	// For tests in this package: called after each commit, and instead of
	// making an RSA key.
	committed  func()
	signingKey func() (rsaKey, error)
}

// Lives of what the authority issues.
const (
	rootLife         = 10 * 365 * 24 * time.Hour
	intermediateLife = 5 * 365 * 24 * time.Hour
	leafLife         = 90 * 24 * time.Hour // the most, and the default
	leafLifeShortest = time.Minute         // two attempts at a renewal, 30 s apart
	leafLifeLeast    = time.Second         // step-ca's recipes ask for seconds
	backdate         = time.Minute         // of NotBefore, as step-ca does
	rootBackdate     = time.Hour           // clocks of boards that have just booted are a little behind

	claimLife      = 24 * time.Hour
	claimLifeMost  = 30 * 24 * time.Hour
	enrollLife     = 10 * time.Minute
	ottLeeway      = time.Minute // step-ca's
	clockTolerance = 5 * time.Minute
	assertionSkew  = 5 * time.Minute
	assertionAhead = 24 * time.Hour

	tokenLife      = 24 * time.Hour
	tokenLifeLeast = 5 * time.Minute

	signingLife   = 90 * 24 * time.Hour
	signingNotice = 7 * 24 * time.Hour // a key is published so long before it signs
)

// Limits (firmware-notes/limits.md).
const (
	maxBody          = 64 << 10
	maxCSR           = 16 << 10
	maxHeader        = 16 << 10
	headerSlack      = 4 << 10 // net/http adds it to MaxHeaderBytes
	maxTime          = 10 * time.Second
	maxIdle          = 60 * time.Second
	maxConnections   = 512
	maxAssertion     = 16 << 10
	maxResource      = 2048
	maxClaims        = 10_000 // one-time tokens that may still be used
	maxReplays       = 10_000 // assertion ids kept for one identity
	maxLive          = 16     // certificates of one identity on one machine that are valid at once
	maxKept          = 8      // certificates that are kept for the record after their end
	maxIdentities    = 64     // user-assigned identities of one machine
	tokensPerSecond  = 20
	tokensBurst      = 60
	maxAuditRecords  = 100_000
	maxAuditBytes    = 64 << 20
	adminConnections = 16
	adminTime        = 30 * time.Second
)
