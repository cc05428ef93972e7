package endpoint

import (
	"errors"
	"net/http"
	"strings"

	"postern/agent/challenge"
)

// maxAuthorization bounds the header; more counts as a wrong key.
const maxAuthorization = 256

// challengeBody is never empty: some clients drop the headers of an empty 401
// (firmware-notes/wire.md, R3).
const challengeBody = `{"error":"unauthorized_client","error_description":"Read the challenge token and send it in the Authorization header."}`

// arc answers the two requests of the Arc flavour: without a valid key a
// challenge, in every state; with one whatever the Broker says. A key is used
// up by the 200 and by nothing else.
func (x *exchange) arc(query, _ string) {
	p, ok := x.query(query)
	if !ok {
		return
	}
	secret, given := basic(x.r.Header["Authorization"])
	if !given {
		x.challenge()
		return
	}
	ticket, err := x.s.o.Keeper.Redeem(x.conn.caller(), secret)
	if err != nil {
		x.challenge()
		x.deny("challenge-refused", refusalOf(err))
		return
	}
	t, err := x.fetch(p, x.caller())
	if err != nil {
		x.fail(err)
		return
	}
	// The file is gone before the body is written. Whoever comes second with
	// the same key gets no token (T4; TestKeyEarnsOneTokenHoweverManyAsk).
	if !ticket.Consume() {
		x.challenge()
		x.deny("challenge-refused", "challenge: used")
		return
	}
	x.succeed(&t, p.selector)
}

// basic returns the key in the Authorization headers. given is false only
// without any; everything that is not one short "Basic KEY" is a wrong key.
func basic(values []string) (key string, given bool) {
	if len(values) == 0 {
		return "", false
	}
	const scheme = "basic "
	v := values[0]
	if len(values) > 1 || len(v) > maxAuthorization || len(v) < len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", true
	}
	return v[len(scheme):], true
}

// challenge answers 401 with a fresh file. The header is the strictest thing in
// this protocol: no quotes, one equals sign, this spelling (firmware-notes/wire.md, R1 and R2).
func (x *exchange) challenge() {
	path, err := x.s.o.Keeper.Mint(x.conn.caller())
	if err != nil {
		a := challengeRefusal(err)
		x.sendError(a)
		x.deny("challenge-refused", "challenge: "+a.code)
		return
	}
	x.note = "challenge"
	x.w.Header()["Www-Authenticate"] = []string{"Basic realm=" + path}
	b, _ := buffers.Get().(*[]byte)
	defer freeBuffer(b)
	*b = append(*b, challengeBody...)
	x.send(http.StatusUnauthorized, valueJSON, *b)
}

// challengeRefusal is the answer when no challenge can be made.
func challengeRefusal(err error) answer {
	var dir *challenge.DirError
	switch {
	case errors.Is(err, challenge.ErrTooMany):
		return answer{
			status: http.StatusTooManyRequests, code: codeTooMany, retry: 1,
			text: "This account has 16 unanswered challenges: answer one, or wait for up to 120 s. See: postern status",
		}
	case errors.Is(err, challenge.ErrBusy):
		return answer{
			status: http.StatusServiceUnavailable, code: codeUnavailable, retry: 1,
			text: "256 challenges are unanswered: try again. See: postern status",
		}
	case errors.As(err, &dir):
		return answer{
			status: http.StatusServiceUnavailable, code: codeUnavailable, retry: 1,
			text: describe("No challenge can be made", dir.Error(), dir.Fix),
		}
	}
	return answer{
		status: http.StatusServiceUnavailable, code: codeUnavailable, retry: 1,
		text: describe("No challenge can be made", err.Error(), "postern check --only token-dir-access"),
	}
}

// refusalOf words a refused key for log and audit; the caller is not told.
func refusalOf(err error) string {
	var e *challenge.InvalidError
	if !errors.As(err, &e) {
		return "challenge: wrong or used"
	}
	if e.Foreign {
		return "challenge: made for " + e.Minted.String() + ", presented by " + e.Presented.String()
	}
	return "challenge: " + e.Reason
}
