package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent/challenge"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/platform"
)

// row is one line of the error tables in firmware-notes/wire.md.
type row struct {
	name   string
	err    error
	live   bool // with a live cached token the broker has no error
	status int
	code   string
	retry  string
	text   string // the whole description, or its beginning if it ends in "…"
}

func state(s lifecycle.State, reason, fix string) error {
	return &token.StateError{State: s, Reason: reason, Fix: fix}
}

func exposed(s lifecycle.State, reason, fix string) error {
	return &token.StateError{State: s, Exposed: true, Reason: reason, Fix: fix}
}

func stateRows() []row {
	return []row{
		{"Offline", state(lifecycle.Offline, "", ""), true, 503, "temporarily_unavailable", "10", "Offline: the authority has not been heard. postern check --only authority-reach"},
		{
			"Offline, tried", &token.StateError{
				State: lifecycle.Offline, Reason: "the authority was last heard 2026-11-20", Fix: "postern check --only authority-reach",
				Err: &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "oauth: token", Err: errors.New("connect: network is unreachable")},
			},
			true, 503, "temporarily_unavailable", "10",
			"Offline: the authority was last heard 2026-11-20; connect: network is not reachable. postern check --only authority-reach",
		},
		{"Expired", state(lifecycle.Expired, "the certificate ended 2026-11-20", ""), true, 403, "unauthorized_client", "", "Expired: the certificate ended 2026-11-20. postern reconnect"},
		{"Expired, no words", state(lifecycle.Expired, "", ""), true, 403, "unauthorized_client", "", "Expired: the certificate is over. postern reconnect"},
		{"ClockUntrusted", state(lifecycle.ClockUntrusted, "the clock says 1970", ""), true, 503, "temporarily_unavailable", "10", "ClockUntrusted: the clock says 1970. postern check --only clock-trusted"},
		{
			"Rejected", state(lifecycle.Rejected, "since 2026: identity\r\ndeleted\x1b[2J", ""), false, 403, "unauthorized_client", "",
			"Rejected: since 2026: identity  deleted [2J. postern reconnect",
		},
		{
			"Moved", state(lifecycle.Moved, "", "x"), false, 403, "unauthorized_client", "",
			"Moved: this is not the hardware that was connected. postern adopt --hardware-changed or postern reset --enrolment",
		},
		{"Unenrolled", state(lifecycle.Unenrolled, "", ""), false, 400, "invalid_request", "", "Identity not found. This device is not connected: postern connect"},
		{
			"Unenrolled, words", state(lifecycle.Unenrolled, "it is assigned and not enrolled", "postern status"), false, 400, "invalid_request", "",
			"Identity not found. It is assigned and not enrolled: postern status",
		},
		{
			"Damaged", state(lifecycle.Damaged, "/var/lib/postern/identity.db: page 4 does not verify", "postern check --only identity-readable"), false, 403, "unauthorized_client", "",
			"Damaged: identity.db: page 4 does not verify. postern check --only identity-readable",
		},
		{
			"Connected, exposed", exposed(lifecycle.Connected, "the keys are exposed", "postern reconnect"), true, 403, "unauthorized_client", "",
			"Insecure: the keys are exposed. postern reconnect",
		},
		{
			"Offline, exposed", exposed(lifecycle.Offline, "", ""), true, 403, "unauthorized_client", "",
			"Insecure: others could read the key. postern check --only key-file-access",
		},
	}
}

func class(c lifecycle.Class, after time.Duration, change ...func(*lifecycle.Error)) error {
	e := &lifecycle.Error{Class: c, RetryAfter: after, Op: "oauth: token", Code: "AADSTS700027", Reason: "no such \"thing\""}
	for _, f := range change {
		f(e)
	}
	return fmt.Errorf("token: %w", e)
}

func classRows() []row {
	words := "AADSTS700027: no such \"thing\". "
	throttled := func(e *lifecycle.Error) { e.Throttled = true }
	return []row{
		{"Transient", class(lifecycle.ClassTransient, 0), true, 503, "temporarily_unavailable", "1", "No token could be had from the authority: " + words + "postern check --only authority-reach"},
		{"Transient, 3 s", class(lifecycle.ClassTransient, 2500*time.Millisecond), true, 503, "temporarily_unavailable", "3", "…"},
		{"Transient, 6 h", class(lifecycle.ClassTransient, 6*time.Hour), true, 503, "temporarily_unavailable", "10", "…"},
		{"429", class(lifecycle.ClassTransient, time.Hour, throttled), true, 429, "too_many_requests", "10", "The authority asks to slow down: " + words + "postern status"},
		{"429, 2 s", class(lifecycle.ClassTransient, 2*time.Second, throttled), true, 429, "too_many_requests", "2", "…"},
		{"Clock", class(lifecycle.ClassClock, time.Second), true, 503, "temporarily_unavailable", "10", "The clock here and the clock of the authority differ: " + words + "…"},
		{"Rejected", class(lifecycle.ClassRejected, 0), true, 403, "unauthorized_client", "", "The authority refused this identity: " + words + "…"},
		{"BadResource", class(lifecycle.ClassBadResource, 0), true, 400, "invalid_resource", "", "The authority does not know that resource: " + words + "…"},
		{"Denied", class(lifecycle.ClassDenied, 0), true, 403, "access_denied", "", "The authority does not allow this identity that resource: " + words + "…"},
	}
}

func requestRows() []row {
	grant := &token.GrantError{Peer: alice, Identity: system, Resource: "https://$(reboot)", Reason: "no grant names uid:1001", Fix: "sudo postern grant uid:1001 --identity system --resource RESOURCE"}
	unknown := *grant
	unknown.Peer, unknown.Fix = platform.Unknown, ""
	workload := *grant
	workload.Peer = "workload:web"
	return []row{
		{"unknown identity", token.ErrUnknownIdentity, false, 400, "invalid_request", "", "Identity not found"},
		{"unknown selector", fmt.Errorf("%w: no identity has the client_id \"x\"", credential.ErrUnknownIdentity), false, 400, "invalid_request", "", "Identity not found"},
		{
			"several", credential.ErrAmbiguous, false, 400, "invalid_request", "",
			"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
		},
		{
			"not granted", grant, false, 403, "access_denied", "",
			"Access denied: uid 1001 is not granted this identity for this resource. sudo postern grant uid:1001 --identity system --resource RESOURCE",
		},
		{"unknown caller", &unknown, false, 403, "access_denied", "", "Access denied: an unknown caller is not granted this identity for this resource. sudo postern grant USER"},
		{"workload", &workload, false, 403, "access_denied", "", "Access denied: workload:web is not granted…"},
		{"bare not granted", token.ErrNotGranted, false, 403, "access_denied", "", "Access denied: the caller is not granted. sudo postern grant USER"},
		{
			"limit", &token.LimitError{Limit: "32 tokens for uid:1001", RetryAfter: time.Minute}, false, 429, "too_many_requests", "10",
			"Too many requests: 32 tokens for uid:1001. postern status",
		},
		{"bare limit", token.ErrTooMany, false, 429, "too_many_requests", "10", "Too many requests. postern status"},
		{"resource", token.ErrResource, false, 400, "invalid_request", "", "The query is refused: resource must be 1 to 2048 printable characters"},
		{"deadline", context.DeadlineExceeded, false, 503, "temporarily_unavailable", "10", "The authority did not answer in 20 s. …"},
		{"bug", errors.New("no class " + canary), false, 500, "unknown", "", "A bug in postern; …"},
	}
}

func TestEveryRowOfTheErrorTableInEveryFlavour(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS, AppService} {
		r := newRig(t, flavour)
		for _, rows := range [][]row{stateRows(), classRows(), requestRows()} {
			for _, tc := range rows {
				t.Run(string(flavour)+"/"+tc.name, func(t *testing.T) {
					if tc.name == "bug" {
						r.stub.fail(errors.New("no class"))
					} else {
						r.stub.fail(tc.err)
					}
					mustMatch(t, r.ask(tokenURI), tc)
					if tc.live {
						r.stub.answer(nil)
						if rep := r.ask(tokenURI); rep.StatusCode != http.StatusOK {
							t.Errorf("with a live token: %d", rep.StatusCode)
						}
					}
				})
			}
		}
	}
}

func mustMatch(t *testing.T, rep reply, tc row) {
	t.Helper()
	mustAlwaysSend(t, rep)
	e := decodeError(t, rep)
	if rep.StatusCode != tc.status || e.Error != tc.code || rep.Header.Get("Retry-After") != tc.retry {
		t.Errorf("got %d %s, Retry-After %q; want %d %s, %q", rep.StatusCode, e.Error, rep.Header.Get("Retry-After"), tc.status, tc.code, tc.retry)
	}
	if begin, open := strings.CutSuffix(tc.text, "…"); open && !strings.HasPrefix(e.Description, begin) || !open && e.Description != tc.text {
		t.Errorf("description\n got %q\nwant %q", e.Description, tc.text)
	}
	for _, never := range []string{"unreachable", "/var/lib/postern", "eyJ", "\n", "\x1b"} {
		if strings.Contains(strings.ToLower(rep.body), never) {
			t.Errorf("body contains %q: %s", never, rep.body)
		}
	}
	if rep.Header.Get("Www-Authenticate") != "" {
		t.Error("only a challenge has Www-Authenticate")
	}
}

type errorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Correlation string `json:"correlation_id"`
}

func decodeError(t *testing.T, rep reply) errorBody {
	t.Helper()
	var e errorBody
	d := json.NewDecoder(strings.NewReader(rep.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%v in %q", err, rep.body)
	}
	if !isGUID(e.Correlation) || e.Error == "" || e.Description == "" {
		t.Errorf("incomplete: %s", rep.body)
	}
	return e
}

func TestErrorsOfResolveAreAnsweredAlike(t *testing.T) {
	r := newRig(t, IMDS)
	for _, tc := range append(stateRows(), requestRows()[:3]...) {
		r.stub.resolve = func(credential.Selector) (credential.Standing, error) { return credential.Standing{}, tc.err }
		mustMatch(t, r.get(tokenURI), tc)
	}
	if n := len(r.stub.asked()); n != 0 {
		t.Errorf("a token was asked for %d times", n)
	}
}

func TestUnfinishedStartIsAnswered503(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS, AppService} {
		r := newRig(t, flavour, func(o *Options) { o.Tokens = nil })
		rep := r.ask(tokenURI)
		r.must(rep, http.StatusServiceUnavailable, "the store is not open yet")
		if rep.Header.Get("Retry-After") != "1" {
			t.Errorf("%s: Retry-After %q", flavour, rep.Header.Get("Retry-After"))
		}
		r.server.SetTokens(r.stub)
		r.must(r.ask(tokenURI), http.StatusOK, canary)
	}
}

func TestA200IsNeverWrittenWithoutALiveToken(t *testing.T) {
	r := newRig(t, IMDS)
	for _, change := range []func(*token.Token){
		func(t *token.Token) { *t = token.Token{} },
		func(t *token.Token) { t.Remaining = 0 },
		func(t *token.Token) { t.Remaining = -time.Hour },
	} {
		r.stub.answer(func(_ context.Context, q token.Request) (token.Token, error) {
			got := goodToken(q)
			change(&got)
			return got, nil
		})
		r.must(r.get(tokenURI), http.StatusInternalServerError, `"error":"unknown"`)
	}
}

func TestChallengeThatCannotBeMadeSaysWhy(t *testing.T) {
	for _, tc := range []row{
		{"too many", challenge.ErrTooMany, false, 429, "too_many_requests", "1", "This account has 16 unanswered challenges…"},
		{"busy", challenge.ErrBusy, false, 503, "temporarily_unavailable", "1", "256 challenges are unanswered…"},
		{
			"drift", &challenge.DirError{Path: "/run/postern/tokens", Problem: "mode is 0777, want 0750", Fix: "chmod 0750 /run/postern/tokens"},
			false, 503, "temporarily_unavailable", "1",
			"No challenge can be made: token directory: /run/postern/tokens: mode is 0777, want 0750. chmod 0750 /run/postern/tokens",
		},
		{"other", errDrift, false, 503, "temporarily_unavailable", "1", "No challenge can be made: drift. postern check --only token-dir-access"},
	} {
		r := newRig(t, Arc, func(o *Options) { o.Keeper = refusing{tc.err} })
		mustMatch(t, r.get(tokenURI), tc)
		mustMatch(t, r.get(tokenURI, "Authorization: Basic x"), tc)
		if d := r.denied(); len(d) == 0 || d[0].Event != "challenge-refused" {
			t.Errorf("%s: denials %+v", tc.name, d)
		}
	}
}

func TestPanicIsA500WithItsCorrelationIDInTheLog(t *testing.T) {
	r := newRig(t, IMDS)
	r.stub.answer(func(context.Context, token.Request) (token.Token, error) { panic("boom") })
	rep := r.get(tokenURI, "x-ms-client-request-id: 0F8FAD5B-d9cb-469f-a165-70867728950e")
	r.must(rep, http.StatusInternalServerError, `"error":"unknown"`)
	if e := decodeError(t, rep); e.Correlation != "0F8FAD5B-d9cb-469f-a165-70867728950e" {
		t.Errorf("correlation %q is not the client's", e.Correlation)
	}
	if log := r.logged(); !strings.Contains(log, "0F8FAD5B-d9cb-469f-a165-70867728950e") || !strings.Contains(log, "boom") || !strings.Contains(log, "rig_test.go") {
		t.Errorf("the log does not tell:\n%s", log)
	}
	r.stub.answer(nil)
	r.must(r.get(tokenURI), http.StatusOK, canary)
}

func TestCorrelationIDIsTheClientsOnlyIfItIsAGUID(t *testing.T) {
	r := newRig(t, IMDS)
	for _, bad := range []string{"", "x", strings.Repeat("a", 36), "0F8FAD5B-d9cb-469f-a165-70867728950", "0F8FAD5B_d9cb-469f-a165-70867728950e", strings.Repeat("a", 4000)} {
		rep := r.get("/nothing", "x-ms-client-request-id: "+bad)
		if e := decodeError(t, rep); e.Correlation == bad {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCleanHidesWhatStrangersMayNotSee(t *testing.T) {
	const dir = "/var/lib/postern"
	for text, want := range map[string]string{
		"network is Unreachable, UNREACHABLE":       "network is not reachable, not reachable",
		"open /var/lib/postern/identity.db: denied": "open identity.db: denied",
		"/var/lib/postern is full":                  "the state directory is full",
		"token " + canary + " leaked":               "token [redacted] leaked",
		"eyJ short":                                 "eyJ short",
		"a\x00b\rc\nd\x7fe\u202ef\xffg":             "a b c d e f g",
		"unreach/var/lib/postern/able":              "not reachable",
		"İİİİİİİİİİİİ unreachable":                  "İİİİİİİİİİİİ not reachable",
		"":                                          "",
	} {
		if got := clean(text, dir); got != want {
			t.Errorf("clean(%q)\n got %q\nwant %q", text, got, want)
		}
	}
	if got := clean(strings.Repeat("ü", 2000), dir); len(got) > maxDescription || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d bytes", len(got))
	}
	if got := clean(`C:\ProgramData\Postern\identity.db`, `C:\ProgramData\Postern\`); got != "identity.db" {
		t.Errorf("got %q", got)
	}
	if got := clean("in state", "state"); got != "in state" {
		t.Errorf("got %q", got)
	}
	if got := clean("/var/lib/postern", "/"); got != "/var/lib/postern" {
		t.Errorf("got %q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("unreachable /var/lib/postern/x eyJhbGciOiJIUzI1NiJ9.e30.x\x00")
	f.Fuzz(func(t *testing.T, text string) {
		got := clean(text, "/var/lib/postern")
		lower := strings.ToLower(got)
		if strings.Contains(lower, "unreachable") || strings.Contains(got, "/var/lib/postern/") || len(got) > maxDescription || strings.ContainsAny(got, "\r\n\x00\x1b") {
			t.Errorf("clean(%q) = %q", text, got)
		}
		var back string
		if err := json.Unmarshal(appendString(nil, got), &back); err != nil || back != got {
			t.Errorf("%q does not survive JSON: %q, %v", got, back, err)
		}
	})
}

func FuzzJSONString(f *testing.F) {
	f.Add("a\"\\\x00\x1f\x7fé\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil || back != strings.ToValidUTF8(s, "\uFFFD") && !strings.Contains(back, "\uFFFD") {
			t.Errorf("%q becomes %q, %v", s, back, err)
		}
	})
}

func TestPanicWithoutHooksIsA500(t *testing.T) {
	r := newRig(t, IMDS, func(o *Options) { o.Served = nil })
	r.stub.answer(func(context.Context, token.Request) (token.Token, error) { panic("boom") })
	r.must(r.get(tokenURI), http.StatusInternalServerError, `"error":"unknown"`)
}
