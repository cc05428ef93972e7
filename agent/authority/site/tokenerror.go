package site

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// oauthError is a refusal of the token endpoint in Entra ID's envelope
// (firmware-notes/authorities.md). number is the AADSTS number, 0 for none.
type oauthError struct {
	status int
	code   string // "error" of RFC 6749 section 5.2
	number int
	text   string
	reason error // for the audit, never sent
}

func (e oauthError) Error() string {
	if e.reason != nil {
		return e.reason.Error()
	}
	return e.description()
}

func (e oauthError) Unwrap() error { return e.reason }

func (e oauthError) description() string {
	if e.number == 0 {
		return e.text
	}
	return fmt.Sprintf("AADSTS%d: %s", e.number, e.text)
}

// tooMany is the one answer that is not JSON, as at the real service.
type tooMany struct{ wait time.Duration }

func (e tooMany) Error() string { return "too many token requests" }

// oauthRefuse answers err and writes it into the audit.
func (a *Authority) oauthRefuse(w http.ResponseWriter, r *http.Request, e Entry, err error) {
	request := correlation(r)
	var full tooMany
	var refusal oauthError
	switch {
	case errors.As(err, &full):
		w.Header().Set("Retry-After", fmt.Sprint(int(full.wait.Seconds()+0.999)))
		http.Error(w, "Too Many Requests", http.StatusTooManyRequests)
		e.Reason = full.Error()
	case errors.As(err, &refusal):
		a.writeOAuthError(w, refusal, request)
		e.Reason = refusal.Error()
	default:
		a.log.Error("a request failed", "event", "site-error", "action", e.Action, "reason", err)
		a.writeOAuthError(w, oauthError{http.StatusInternalServerError, "server_error", 90033, "A transient error has occurred. Please try again.", nil}, request)
		return
	}
	e.Reason, e.Source, e.Request = cut(e.Reason, 256), r.RemoteAddr, request
	kind := refusal.code + strconv.Itoa(refusal.number)
	if e.Machine != "" { // a holder was found: the client id is no stranger's text
		kind += " " + e.ClientID
	}
	a.deny(r.Context(), e, kind)
}

func (a *Authority) writeOAuthError(w http.ResponseWriter, e oauthError, request string) {
	now, trace := a.now().UTC().Format("2006-01-02 15:04:05Z"), newGUID()
	numbers := []int{}
	if e.number != 0 {
		numbers = append(numbers, e.number)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	writeJSON(w, e.status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
		Timestamp   string `json:"timestamp"`
		Trace       string `json:"trace_id"`
		Correlation string `json:"correlation_id"`
	}{
		e.code, fmt.Sprintf("%s Trace ID: %s Correlation ID: %s Timestamp: %s", e.description(), trace, request, now),
		numbers, now, trace, request,
	})
}

// correlation is the caller's request id if it looks like one, else a new one.
func correlation(r *http.Request) string {
	for _, id := range []string{r.Header.Get("Client-Request-Id"), r.URL.Query().Get("client-request-id")} {
		if id = strings.ToLower(id); validGUID(id) {
			return id
		}
	}
	return newGUID()
}

// The refusals, in the words of the real service where it has some.

func errTenant(tenant string) oauthError {
	return oauthError{http.StatusBadRequest, "invalid_request", 90002, fmt.Sprintf("Tenant '%s' not found. Check to make sure you have the correct tenant ID.", cut(tenant, 64)), nil}
}

func errMissing(parameter string) oauthError {
	return oauthError{http.StatusBadRequest, "invalid_request", 900144, fmt.Sprintf("The request body must contain the following parameter: '%s'.", parameter), nil}
}

func errDoubled(parameter string) oauthError {
	return oauthError{http.StatusBadRequest, "invalid_request", 9000411, fmt.Sprintf("The request is not properly formatted. The parameter '%s' is duplicated.", parameter), nil}
}

func errGrant(grant string) oauthError {
	return oauthError{http.StatusBadRequest, "unsupported_grant_type", 70003, fmt.Sprintf("The app requested an unsupported grant type '%s'.", cut(grant, 64)), nil}
}

func errScope(scope string) oauthError {
	return oauthError{http.StatusBadRequest, "invalid_scope", 70011, fmt.Sprintf("The provided value for the input parameter 'scope' is not valid. The scope '%s' must be one resource with the suffix /.default.", cut(scope, 128)), nil}
}

func (a *Authority) errResource(resource string) oauthError {
	return oauthError{http.StatusBadRequest, "invalid_resource", 500011, fmt.Sprintf("The resource principal named %s was not found in the tenant named %s. Register it: postern authority resource add.", cut(resource, 128), a.tenant), nil}
}

func (a *Authority) errNoApplication(clientID string, reason error) oauthError {
	return oauthError{http.StatusBadRequest, "unauthorized_client", 700016, fmt.Sprintf("Application with identifier '%s' was not found in the directory '%s'.", cut(clientID, 64), a.tenant), reason}
}

func errDisabledClient(clientID string) oauthError {
	return oauthError{http.StatusBadRequest, "unauthorized_client", 7000112, fmt.Sprintf("Application '%s' is disabled.", cut(clientID, 64)), errDisabled}
}

func errClient(number int, text string, reason error) oauthError {
	return oauthError{http.StatusUnauthorized, "invalid_client", number, text, reason}
}

// errKey says why the certificate behind a client is not accepted.
func errKey(why, thumbprint string, reason error) oauthError {
	return errClient(700027, fmt.Sprintf("Client assertion contains an invalid signature. [Reason - %s, Thumbprint of key used by client: '%s']", why, cut(thumbprint, 64)), reason)
}
