package authority

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"

	"postern/agent/lifecycle"
)

// Where a call broke. The strings stand in error texts.
const (
	StageConnect  = "connect"
	StageProxy    = "proxy"
	StageTLS      = "tls"
	StageRedirect = "redirect"
	StageAnswer   = "answer"
)

// Fault is a call that did not become an answer. Its text names the stage, the
// host and, for TLS, the check that failed; nothing in it was secret.
type Fault struct {
	Stage  string
	Host   string // of the authority, or of the proxy for StageProxy
	Reason string // one printable sentence
	Clock  bool   // our own clock is the likely cause
	Proven bool   // an alert came inside the verified connection: only the server can have sent it
	Err    error  // the cause below; may be nil

	dates bool // a chain failed for its dates
}

func (f *Fault) Error() string { return f.Stage + " " + f.Host + ": " + f.Reason }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Class returns what a fault means for an identity: Clock if our own time is
// in doubt, else Transient. Nothing that happens on the way is a refusal.
func (f *Fault) Class() lifecycle.Class {
	if f.Clock {
		return lifecycle.ClassClock
	}
	return lifecycle.ClassTransient
}

// faultOf finds or makes the Fault in an error of http.Client.
func faultOf(host string, err error) *Fault {
	var fault *Fault
	if errors.As(err, &fault) {
		return fault
	}
	var outer *url.Error // would quote the whole URL
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if alert, ok := Alert(err); ok {
		// With TLS 1.3 the server judges our certificate after the handshake.
		// One that comes in the handshake may be anybody's.
		return &Fault{Stage: StageTLS, Host: host, Reason: alertReason(alert), Proven: true, Err: err}
	}
	reason := Clean(err.Error(), MaxText)
	switch {
	case errors.Is(err, context.Canceled):
		reason = "the call was given up"
	case isTimeout(err):
		reason = "no answer in time"
	case isCut(err):
		reason = "the connection broke off"
	}
	return &Fault{Stage: StageAnswer, Host: host, Reason: reason, Err: err}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// isCut says that the other end, or something between, ended the connection.
func isCut(err error) bool {
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, cut) {
			return true
		}
	}
	return false
}

// connectReason words a failed connection.
func connectReason(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no host of that name"
	case errors.As(err, &dns):
		return "the name look-up failed: " + Clean(dns.Err, MaxText)
	case isTimeout(err):
		return fmt.Sprintf("no connection within %s", ConnectTimeout)
	}
	// Around the cause net puts the operation and the address once more, which
	// stand before it already.
	var op *net.OpError
	for errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return Clean(err.Error(), MaxText)
}

// tlsFault names the check that failed. Its order is not the library's: a
// foreign certificate that is also over is reported by what was found first.
func tlsFault(host string, err error, at time.Time, trusted bool) *Fault {
	f := &Fault{Stage: StageTLS, Host: host, Err: err}
	var failed *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var weak *weakKey
	switch {
	case errors.As(err, &failed):
		f.Reason, f.dates = chainReason(failed, at)
		f.Clock = f.dates && !trusted
	case errors.As(err, &weak):
		f.Reason = weak.Error()
	case errors.As(err, &header):
		f.Reason = "the server does not speak TLS"
	case isTimeout(err):
		f.Reason = fmt.Sprintf("the handshake did not end within %s", HandshakeTimeout)
	case isCut(err):
		f.Reason = "the connection was cut in the handshake"
	default:
		if alert, ok := Alert(err); ok {
			f.Reason = alertReason(alert)
		} else {
			f.Reason = Clean(err.Error(), MaxText)
		}
	}
	return f
}

// chainReason words why a chain was refused; dates is true if only the time spoke against it.
func chainReason(failed *tls.CertificateVerificationError, at time.Time) (reason string, dates bool) {
	var (
		name    x509.HostnameError
		foreign x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		leaf    *x509.Certificate
	)
	if len(failed.UnverifiedCertificates) > 0 {
		leaf = failed.UnverifiedCertificates[0]
	}
	switch err := failed.Err; {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		const layout = "2006-01-02 15:04 MST"
		if at.Before(invalid.Cert.NotBefore) {
			return "the server's certificate is not valid before " + invalid.Cert.NotBefore.UTC().Format(layout), true
		}
		return "the server's certificate expired on " + invalid.Cert.NotAfter.UTC().Format(layout), true
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "the server's certificate is not meant for servers", false
	case errors.As(err, &name):
		return "the server's certificate is for another name", false
	case errors.As(err, &foreign) && leaf != nil && leaf.CheckSignatureFrom(leaf) == nil:
		return "the server's certificate is self-signed and not a root of ours", false
	case errors.As(err, &foreign):
		return fmt.Sprintf("no chain from the server's certificate to a root of ours (it sent %d)", len(failed.UnverifiedCertificates)), false
	default:
		return "the server's certificate was refused: " + Clean(err.Error(), MaxText), false
	}
}

// The alerts on which a driver decides (RFC 8446 section 6).
const (
	AlertBadCertificate     tls.AlertError = 42
	AlertCertificateRevoked tls.AlertError = 44
	AlertCertificateExpired tls.AlertError = 45
	AlertCertificateUnknown tls.AlertError = 46
	AlertUnknownCA          tls.AlertError = 48
)

// Alert returns the TLS alert with which the server ended the connection.
func Alert(err error) (tls.AlertError, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	for n := 0; n < 256; n++ { // the library's own type is not exported; the texts are the same
		if alert := tls.AlertError(n); alert.Error() == op.Err.Error() {
			return alert, true
		}
	}
	return 0, false
}

func alertReason(alert tls.AlertError) string {
	return "the server ended it: " + strings.TrimPrefix(alert.Error(), "tls: ")
}

// MaxText is how much of a stranger's text is shown, in bytes.
const MaxText = 256

// Clean makes a stranger's text fit to be shown: one line, printable, at most
// limit bytes.
func Clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return strings.TrimSpace(s)
}
