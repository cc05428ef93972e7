package endpoint

import (
	"net/http"
	"net/netip"
	"time"

	"postern/agent/token"
)

// imdsEvery is how long an answer of MayIMDS counts for one connection. It may
// read the group database, which is too slow for each request.
const imdsEvery = time.Second

// imds answers the single request of the IMDS flavour. There is no file to
// prove anything, so who asks is the only gate.
func (x *exchange) imds(query, _ string) {
	p, ok := x.query(query)
	if !ok {
		return
	}
	if !x.mayIMDS() {
		a := x.notAllowed()
		x.sendError(a)
		x.deny("token-denied", "imds not allowed")
		return
	}
	t, err := x.fetch(p, x.caller())
	if err != nil {
		x.fail(err)
		return
	}
	x.succeed(&t, p.selector)
}

// mayIMDS asks the gate (imds.allow), at most once a second for a connection.
func (x *exchange) mayIMDS() bool {
	may := x.s.o.MayIMDS
	if may == nil || x.conn == nil {
		return false
	}
	now := time.Now()
	if x.conn.asked.IsZero() || now.Sub(x.conn.asked) >= imdsEvery {
		x.conn.mayIMDS, x.conn.asked = may(x.conn.peer), now
	}
	return x.conn.mayIMDS
}

func (x *exchange) notAllowed() answer {
	a := answer{status: http.StatusForbidden, code: codeAccessDenied}
	if uid, ok := x.conn.caller().UID(); ok {
		n := utoa(uid)
		a.text = "Access denied: uid " + n + " may not use the IMDS flavour (imds.allow = \"granted\"). sudo postern grant " + n
		return a
	}
	a.text = "Access denied: " + x.conn.caller().String() + " callers may not use the IMDS flavour (imds.allow = \"granted\"). See: postern check"
	return a
}

// appService answers a workload. Its secret is the principal.
func (x *exchange) appService(query, _ string) {
	p, ok := x.query(query)
	if !ok {
		return
	}
	v := x.r.Header["X-Identity-Header"]
	if len(v) != 1 || len(v[0]) > maxAuthorization || !x.workload.holds(v[0]) {
		x.wrongSecret()
		return
	}
	caller := token.Caller{Peer: x.workload.peer(), Listener: x.name, Agent: x.agent()}
	t, err := x.fetch(p, caller)
	if err != nil {
		x.fail(err)
		return
	}
	x.succeed(&t, p.selector)
}

// wrongSecret answers 401, and 429 from the eleventh within a minute.
func (x *exchange) wrongSecret() {
	defer x.deny("token-denied", "workload secret is wrong")
	var addr netip.Addr
	if x.conn != nil {
		addr, _ = ipOf(x.conn.RemoteAddr()) // the zero address counts for all that have none
	}
	if x.workload.failed(addr) {
		x.sendError(answer{
			status: http.StatusTooManyRequests, code: codeTooMany, retry: 10,
			text: "More than 10 wrong secrets a minute from this address. Get the right one: postern env " + x.workload.name,
		})
		return
	}
	x.sendError(answer{
		status: http.StatusUnauthorized, code: codeUnauthorized,
		text: "X-IDENTITY-HEADER is missing or wrong. Get the right one: postern env " + x.workload.name,
	})
}
