package stepca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"postern/agent/authority"
	"postern/agent/lifecycle"
)

// errSign are the causes of a refused claim, which step-ca does not tell apart.
var errSign = errors.New("the claim was used before, or it is over (or a clock is wrong), or it is another authority's")

// message is the server's own words, {"status":401,"message":"…"}, cleaned; the
// start of the body if it is something else; empty if that is empty.
func message(resp *authority.Response) string {
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(resp.Body, &said) == nil && said.Message != "" {
		return authority.Clean(said.Message, authority.MaxText)
	}
	return authority.Clean(string(resp.Body[:min(len(resp.Body), 512)]), authority.MaxText)
}

// temporary are the statuses that say nothing about us: a server or a proxy
// before it that is being moved, restarted, or is busy.
func temporary(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusTooEarly:
		return true
	}
	return status >= 500 || status < 400 // a 2xx or 3xx that was not asked for
}

func transient(op string, resp *authority.Response) error {
	throttled := resp.Status == http.StatusTooManyRequests
	return &lifecycle.Error{
		Class: lifecycle.ClassTransient, Op: op, Reason: message(resp), RetryAfter: resp.RetryAfter(),
		Throttled: throttled, Answered: throttled, Err: statusError(resp.Status),
	}
}

func denied(op string, resp *authority.Response, why error) error {
	if why == nil {
		why = statusError(resp.Status)
	}
	return &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true, Op: op, Reason: message(resp), Err: why}
}

func malformed(op, reason string, err error) error {
	return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: op, Reason: reason, Err: err}
}

// signRefusal reduces the refusal of a claim: nothing is known yet of which it
// could be the loss, so it is Denied.
func signRefusal(op string, resp *authority.Response) error {
	switch {
	case temporary(resp.Status):
		return transient(op, resp)
	case resp.Status == http.StatusUnauthorized: // a 403 says itself what is wrong
		return denied(op, resp, errSign)
	}
	return denied(op, resp, nil)
}

// refusal reduces the refusal of a call that was made with a certificate.
func (a *Authority) refusal(ctx context.Context, op string, resp *authority.Response) error {
	switch {
	case temporary(resp.Status):
		return transient(op, resp)
	case resp.Status == http.StatusUnauthorized && strings.Contains(message(resp), "certificate expired on"):
		return a.expired(ctx, &lifecycle.Error{Op: op, Reason: message(resp), Err: statusError(resp.Status)})
	case resp.Status == http.StatusUnauthorized, resp.Status == http.StatusForbidden:
		return &lifecycle.Error{Class: lifecycle.ClassRejected, Answered: true, Op: op, Reason: message(resp), Err: statusError(resp.Status)}
	}
	return denied(op, resp, nil)
}

// afterAlert looks at a call that ended without an answer: the server may have
// said by a TLS alert that our certificate is over.
func (a *Authority) afterAlert(ctx context.Context, op string, err error) error {
	alert, ok := authority.Alert(err)
	if !ok || alert != authority.AlertCertificateExpired {
		return err
	}
	var fault *authority.Fault
	if errors.As(err, &fault) && !fault.Proven {
		// In the handshake, before anything is encrypted, whoever is in the way
		// can send this: it may make us look at the clock, and no more.
		if judged := a.expired(ctx, &lifecycle.Error{Op: op, Err: fault}); lifecycle.ClassOf(judged) == lifecycle.ClassClock {
			return judged
		}
		return err
	}
	return a.expired(ctx, &lifecycle.Error{Op: op, Err: fault})
}

// expired decides what it means that the authority takes our certificate for
// expired: our own NotAfter has not passed by our clock, so one of the clocks
// is wrong, or the authority knows something else. Its health answer, asked
// without a certificate, has its clock.
func (a *Authority) expired(ctx context.Context, refused *lifecycle.Error) error {
	resp, err := a.health(ctx)
	now := a.clock.Now()
	switch {
	case err != nil, resp.Date.IsZero():
		refused.Class = lifecycle.ClassTransient // nothing to compare with
	case resp.Date.Sub(now.Wall).Abs() >= lifecycle.ClockTolerance:
		refused.Class, refused.Answered = lifecycle.ClassClock, true
	default:
		refused.Class, refused.Answered = lifecycle.ClassRejected, true
	}
	return refused
}

// statusError is an answer that was not the one asked for.
type statusError int

func (s statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("answered %d %s", int(s), strings.ToLower(http.StatusText(int(s)))))
}
