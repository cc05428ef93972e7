package authority

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"postern/agent/lifecycle"
)

// Response is a whole answer that came over verified TLS.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	Date   time.Time // the authority's clock, UTC; zero if it did not say
}

// MediaType is the answer's Content-Type without parameters, in lower case.
func (r *Response) MediaType() string {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// Do sends req and reads the whole answer, at most limit bytes of body. op
// names driver and call ("stepca: rekey") and begins the error's text. Every
// status is an answer; a call that does not become one is a *lifecycle.Error
// of class Transient or Clock that wraps a *Fault. An error means that it is
// not known whether the authority acted on the request.
func Do(client *http.Client, req *http.Request, op string, limit int64) (*Response, error) {
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "postern")
	}
	resp, err := client.Do(req) //nolint:gosec // whom to call is the drivers' configuration
	if err != nil {
		return nil, failed(op, faultOf(req.URL.Host, err))
	}
	defer func() { _ = resp.Body.Close() }() // everything wanted was read
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		fault := faultOf(req.URL.Host, err)
		fault.Reason = fmt.Sprintf("%s after %d bytes", fault.Reason, len(body))
		return nil, failed(op, fault)
	}
	if int64(len(body)) > limit {
		return nil, failed(op, &Fault{
			Stage: StageAnswer, Host: req.URL.Host,
			Reason: fmt.Sprintf("more than %d bytes; the rest was not read", limit),
		})
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: body, Date: dateOf(resp.Header)}, nil
}

func failed(op string, fault *Fault) error {
	return &lifecycle.Error{Class: fault.Class(), Op: op, Err: fault}
}

func dateOf(h http.Header) time.Time {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date.UTC()
}

// MaxRetryAfter bounds an authority's wish.
const MaxRetryAfter = 6 * time.Hour

// RetryAfter reads the Retry-After header: whole seconds, or a date, which is
// compared with the answer's own Date, because both are of one clock. The
// result is 0 to 6 h; 0 also if there is no header or it is nonsense
// (RFC 9110 section 10.2.3).
func (r *Response) RetryAfter() time.Duration {
	value := strings.TrimSpace(r.Header.Get("Retry-After"))
	if isDigits(value) {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(MaxRetryAfter/time.Second) {
			return MaxRetryAfter // only digits, so it is too large
		}
		return time.Duration(seconds) * time.Second
	}
	until, err := http.ParseTime(value)
	if err != nil || r.Date.IsZero() {
		return 0
	}
	return min(max(until.Sub(r.Date), 0), MaxRetryAfter)
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
