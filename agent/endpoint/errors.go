package endpoint

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/platform"
)

var (
	// errNotOpen: the sockets answer before the store does.
	errNotOpen = errors.New("the store is not open yet")
	// errNoToken is a bug in the broker. A 200 is never written without a live
	// token (rolesanywhere-credential-helper#64).
	errNoToken = errors.New("no token and no error")
)

// answerTo is the table of firmware-notes/wire.md: which answer an error of the
// Broker gets. A state, where it is the cause, goes before the class.
func answerTo(err error, correlation string, log *slog.Logger) answer {
	var state *token.StateError
	var limit *token.LimitError
	var failed *lifecycle.Error
	switch {
	case errors.As(err, &state):
		return byState(state)
	case errors.Is(err, token.ErrNotGranted):
		return notGranted(err)
	case errors.Is(err, token.ErrUnknownIdentity), errors.Is(err, credential.ErrUnknownIdentity):
		return answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: "Identity not found"}
	case errors.Is(err, credential.ErrAmbiguous):
		return answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: multipleIdentities}
	case errors.Is(err, token.ErrResource):
		return answer{status: http.StatusBadRequest, code: codeInvalidRequest, text: "The query is refused: " + token.ErrResource.Error()}
	case errors.As(err, &limit):
		return answer{
			status: http.StatusTooManyRequests, code: codeTooMany, retry: clampRetry(limit.RetryAfter),
			text: describe("Too many requests", limit.Limit, "postern status"),
		}
	case errors.Is(err, token.ErrTooMany):
		return answer{
			status: http.StatusTooManyRequests, code: codeTooMany, retry: longestRetry,
			text: describe("Too many requests", "", "postern status"),
		}
	case errors.Is(err, errNotOpen):
		return answer{
			status: http.StatusServiceUnavailable, code: codeUnavailable, retry: 1,
			text: "The agent is starting: the store is not open yet. postern wait --for ready",
		}
	case errors.As(err, &failed):
		return byClass(failed)
	case errors.Is(err, context.DeadlineExceeded):
		return answer{
			status: http.StatusServiceUnavailable, code: codeUnavailable, retry: longestRetry,
			text: "The authority did not answer in 20 s. postern check --only authority-reach",
		}
	}
	log.Error("bug: a token request ended in an error without a class", "event", "panic", "correlation", correlation, "reason", err)
	return answer{
		status: http.StatusInternalServerError, code: codeUnknown,
		text: "A bug in postern; the log has the details under this correlation id. See: journalctl -u postern",
	}
}

const multipleIdentities = "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"

// longestRetry is the most that is ever asked for: Go gives up at once above
// 25 s, JavaScript sleeps any length (firmware-notes/wire.md).
const longestRetry = 10

// clampRetry is a Retry-After in whole seconds, 1 to 10.
func clampRetry(d time.Duration) int {
	return int(min(max(math.Ceil(d.Seconds()), 1), longestRetry))
}

// byState answers for a state that stands in the way of any token. Only states
// that heal by themselves get a status that clients retry.
func byState(e *token.StateError) answer {
	reason := e.Reason
	if e.Err != nil && e.State == lifecycle.Offline {
		reason = cmp.Or(reason, "the authority has not been heard") + "; " + wordsOf(e.Err)
	}
	final := answer{status: http.StatusForbidden, code: codeUnauthorized}
	heals := answer{status: http.StatusServiceUnavailable, code: codeUnavailable, retry: longestRetry}
	if e.Exposed {
		final.text = describe("Insecure", cmp.Or(reason, "others could read the key"), cmp.Or(e.Fix, "postern check --only key-file-access"))
		return final
	}
	name := e.State.String()
	switch e.State {
	case lifecycle.Unenrolled:
		// As on a machine without an identity, so that a chain of credentials
		// goes on to the next one (measured).
		return answer{
			status: http.StatusBadRequest, code: codeInvalidRequest,
			text: "Identity not found. " + capital(cmp.Or(reason, "This device is not connected")) + ": " + cmp.Or(e.Fix, "postern connect"),
		}
	case lifecycle.Expired:
		final.text = describe(name, cmp.Or(reason, "the certificate is over"), cmp.Or(e.Fix, "postern reconnect"))
	case lifecycle.Rejected:
		final.text = describe(name, cmp.Or(reason, "the authority no longer knows this identity"), cmp.Or(e.Fix, "postern reconnect"))
	case lifecycle.Moved:
		final.text = describe(name, cmp.Or(reason, "this is not the hardware that was connected"), "postern adopt --hardware-changed or postern reset --enrolment")
	case lifecycle.Damaged:
		final.text = describe(name, cmp.Or(reason, "the identity cannot be read"), cmp.Or(e.Fix, "postern check --only identity-readable"))
	case lifecycle.ClockUntrusted:
		heals.text = describe(name, cmp.Or(reason, "the clock cannot be believed"), cmp.Or(e.Fix, "postern check --only clock-trusted"))
		return heals
	default: // Offline
		heals.text = describe(name, cmp.Or(reason, "the authority has not been heard"), cmp.Or(e.Fix, "postern check --only authority-reach"))
		return heals
	}
	return final
}

// byClass answers for what the authority said, or for its silence.
func byClass(e *lifecycle.Error) answer {
	words := wordsOf(e)
	switch e.Class {
	case lifecycle.ClassRejected:
		return answer{
			status: http.StatusForbidden, code: codeUnauthorized,
			text: describe("The authority refused this identity", words, "postern status"),
		}
	case lifecycle.ClassDenied:
		return answer{
			status: http.StatusForbidden, code: codeAccessDenied,
			text: describe("The authority does not allow this identity that resource", words, "postern identity list"),
		}
	case lifecycle.ClassBadResource:
		return answer{
			status: http.StatusBadRequest, code: codeInvalidResource,
			text: describe("The authority does not know that resource", words, "postern token --resource https://vault.azure.net"),
		}
	case lifecycle.ClassClock:
		return answer{
			status: http.StatusServiceUnavailable, code: codeUnavailable, retry: longestRetry,
			text: describe("The clock here and the clock of the authority differ", words, "postern check --only authority-clock"),
		}
	}
	if e.Throttled {
		return answer{
			status: http.StatusTooManyRequests, code: codeTooMany, retry: clampRetry(e.RetryAfter),
			text: describe("The authority asks to slow down", words, "postern status"),
		}
	}
	return answer{
		status: http.StatusServiceUnavailable, code: codeUnavailable, retry: clampRetry(e.RetryAfter),
		text: describe("No token could be had from the authority", words, "postern check --only authority-reach"),
	}
}

// notGranted names the caller and the command that grants it, as the Broker
// words it.
func notGranted(err error) answer {
	a := answer{status: http.StatusForbidden, code: codeAccessDenied}
	var e *token.GrantError
	if !errors.As(err, &e) {
		a.text = "Access denied: the caller is not granted. sudo postern grant USER"
		return a
	}
	who := "an unknown caller"
	if uid, ok := e.Peer.UID(); ok {
		who = "uid " + utoa(uid)
	} else if e.Peer != platform.Unknown {
		who = e.Peer.String()
	}
	a.text = describe("Access denied", who+" is not granted this identity for this resource", cmp.Or(e.Fix, "sudo postern grant USER"))
	return a
}

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
