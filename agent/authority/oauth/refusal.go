package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"postern/agent/authority"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
)

// refusal is an answer that holds no token.
type refusal struct {
	status   int
	said     tokenAnswer
	readable bool // there was an OAuth error in it
}

func (r *refusal) Error() string {
	return strings.TrimSpace(fmt.Sprintf("answered %d %s", r.status, r.code()))
}

// skewError is a refusal of an assertion whose time was not the authority's.
type skewError struct{ refused *lifecycle.Error }

func (e *skewError) Error() string { return e.refused.Error() }
func (e *skewError) Unwrap() error { return e.refused }

const (
	maxSkew   = time.Minute      // between an assertion's time and the answer's Date
	keyIsNew  = 60 * time.Minute // a key may not be known everywhere before that
	newMargin = 5 * time.Minute
)

// classify is the table of firmware-notes/authorities.md; the first row that fits
// decides. The rows about connections are in package authority and afterAlert.
func (i *Issuer) classify(resp *authority.Response, r *refusal, with *credential.Credential, dated time.Time) error {
	e := &lifecycle.Error{Op: opToken, Code: r.code(), Reason: r.reason(), Err: r}
	if e.Code != "" {
		e.Err = nil // the code says it
	}
	switch {
	case r.unanswered():
		i.discovery.doubt() // the endpoint may have moved
		return i.temporary(resp, e.Op, e)
	case r.status == http.StatusTooManyRequests, r.status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return i.temporary(resp, e.Op, e)
	}
	e.Answered = r.readable && r.status < 500
	if !dated.IsZero() && !resp.Date.IsZero() && resp.Date.Sub(dated).Abs() > maxSkew {
		// Before 5xx: fosite answers an assertion out of its time with 500.
		e.Class = lifecycle.ClassClock
		return &skewError{e}
	}
	e.Class = i.classOf(r)
	switch e.Class {
	case lifecycle.ClassTransient:
		e.RetryAfter = resp.RetryAfter()
	case lifecycle.ClassRejected:
		if r.said.Error == "invalid_client" && i.isNew(with, resp.Date) {
			e.Class, e.Err = lifecycle.ClassTransient, token.ErrNotReplicated
		}
	}
	return e
}

// classOf is the part of the table that rests on status and error code alone.
func (i *Issuer) classOf(r *refusal) lifecycle.Class {
	switch code := r.said.Error; {
	case r.status >= 500, code == "temporarily_unavailable", code == "server_error", code == "jti_known":
		return lifecycle.ClassTransient
	case r.algorithm():
		// Who refuses the algorithm knows the client: the identity stands.
		return lifecycle.ClassDenied
	case code == "invalid_client", code == "unauthorized_client":
		return lifecycle.ClassRejected
	case code == "invalid_resource", code == "invalid_target", code == "invalid_scope",
		code == "invalid_request" && i.config.ResourceParam == AudienceParam:
		return lifecycle.ClassBadResource
	case !r.readable && r.status != http.StatusForbidden:
		return lifecycle.ClassTransient // not the words of a token issuer
	}
	return lifecycle.ClassDenied
}

// unanswered are the statuses that come from something on the way.
func (r *refusal) unanswered() bool {
	switch r.status {
	case http.StatusNotFound, http.StatusProxyAuthRequired, http.StatusRequestTimeout:
		return true
	}
	return r.status < 400 && !r.readable
}

// temporary is the answer of a server that may do better later.
func (i *Issuer) temporary(resp *authority.Response, op string, why error) error {
	throttled := resp.Status == http.StatusTooManyRequests
	e := &lifecycle.Error{Class: lifecycle.ClassTransient, RetryAfter: resp.RetryAfter(), Throttled: throttled, Answered: throttled, Op: op, Err: why}
	var inner *lifecycle.Error
	if errors.As(why, &inner) {
		e.Code, e.Reason, e.Err = inner.Code, inner.Reason, inner.Err
	}
	if e.Reason == "" && e.Code == "" && len(resp.Body) > 0 && strings.HasPrefix(resp.MediaType(), "text/plain") {
		e.Reason = authority.Clean(string(resp.Body[:min(len(resp.Body), 512)]), authority.MaxText)
	}
	return e
}

// isNew says that the authority may not have heard of the key or certificate
// yet. The certificate's own date is the authority's; the key's is ours.
func (i *Issuer) isNew(with *credential.Credential, date time.Time) bool {
	if date.IsZero() {
		date = i.now()
	}
	for _, age := range []time.Duration{date.Sub(with.Leaf().NotBefore), i.config.Clock.Now().Wall.Sub(with.Made)} {
		if age > -newMargin && age < keyIsNew {
			return true
		}
	}
	return false
}

// afterAlert looks at a call that ended without an answer: the server may have
// refused our certificate by a TLS alert.
func (i *Issuer) afterAlert(ctx context.Context, end endpoints, err error) error {
	alert, ok := authority.Alert(err)
	if !ok || alert != authority.AlertCertificateExpired && alert != authority.AlertBadCertificate {
		return err
	}
	var fault *authority.Fault
	if !errors.As(err, &fault) {
		return err
	}
	judged := &lifecycle.Error{Op: opToken, Err: fault}
	resp, dateErr := i.get(ctx, i.dateAddress(end))
	now := i.config.Clock.Now()
	switch {
	case dateErr != nil, resp.Date.IsZero():
		return err // nothing to compare with
	case resp.Date.Sub(now.Wall).Abs() >= lifecycle.ClockTolerance:
		judged.Class, judged.Answered = lifecycle.ClassClock, true
	case !fault.Proven:
		return err // in the handshake anybody on the way can send an alert
	default:
		judged.Class, judged.Answered = lifecycle.ClassRejected, true
	}
	return judged
}

// dateAddress is what the server is asked for its Date: any answer will do.
func (i *Issuer) dateAddress(end endpoints) string {
	if i.config.Issuer != "" {
		return wellKnown(i.config.Issuer)[0]
	}
	return end.token
}
