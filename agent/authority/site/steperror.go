package site

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// stepError is a refusal in the words of step-ca (errs/error.go of its 0.30):
// 400 and 403 say what is wrong, 401 never does.
type stepError struct {
	status  int
	message string // empty: the default of the status
	reason  error  // for the audit, never sent
}

func (e stepError) Error() string {
	if e.reason != nil {
		return e.reason.Error()
	}
	return e.text()
}

func (e stepError) Unwrap() error { return e.reason }

const seeLogs = " Please see the certificate authority logs for more info."

func (e stepError) text() string {
	if e.message != "" {
		return e.message
	}
	switch e.status {
	case http.StatusUnauthorized:
		return "The request lacked necessary authorization to be completed." + seeLogs
	case http.StatusForbidden:
		return "The request was forbidden by the certificate authority." + seeLogs
	case http.StatusNotImplemented:
		return "The requested method is not implemented by the certificate authority." + seeLogs
	case http.StatusInternalServerError:
		return "The certificate authority encountered an Internal Server Error." + seeLogs
	case http.StatusRequestEntityTooLarge:
		return "The request could not be completed: the request is too large."
	}
	return "The requested could not be completed." + seeLogs // sic
}

func (e stepError) write(w http.ResponseWriter) {
	writeJSON(w, e.status, struct {
		Status  int    `json:"status"`
		Message string `json:"message"`
	}{e.status, e.text()})
}

func badRequest(format string, args ...any) stepError {
	return stepError{status: http.StatusBadRequest, message: "The request could not be completed: " + fmt.Sprintf(format, args...) + "."}
}

func forbidden(format string, args ...any) stepError {
	return stepError{status: http.StatusForbidden, message: "The request was forbidden by the certificate authority: " + fmt.Sprintf(format, args...) + "."}
}

func unauthorized(reason error) stepError {
	return stepError{status: http.StatusUnauthorized, reason: reason}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller has gone: nobody to tell
}
