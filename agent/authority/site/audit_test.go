package site

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/agent/authority/jws"
)

// audit reads all records.
func (w *world) audit() []Entry {
	w.t.Helper()
	var out []Entry
	for since := uint64(0); ; {
		page, err := w.a.Audit(context.Background(), AuditQuery{Since: since})
		w.must(err)
		for _, line := range page.Lines {
			var e Entry
			w.must(json.Unmarshal(line, &e))
			out = append(out, e)
		}
		if len(page.Lines) == 0 {
			return out
		}
		since = page.Next
	}
}

func (w *world) lines(q AuditQuery) AuditPage {
	w.t.Helper()
	page, err := w.a.Audit(context.Background(), q)
	w.must(err)
	return page
}

func TestEveryDecisionIsAudited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := WithPrincipal(context.Background(), "uid:0")
	w.addVault()
	c, err := w.a.CreateClaim(ctx, ClaimRequest{Machine: "gw"})
	w.must(err)
	d := w.sign(c.Token.Reveal())
	_, err = w.a.CreateIdentity(ctx, "telemetry", "")
	w.must(err)
	w.must(w.a.Assign(ctx, "telemetry", "gw"))
	u := w.fetch(d, "telemetry")
	a := w.tokenFor(u, vault)
	n := w.rekey(d)
	w.selfRevoke(d, 4)
	w.post(nil, "/sign", signBody(t, newKey(t), c.Token.Reveal()))
	w.must(w.a.Unassign(ctx, "telemetry", "gw"))
	w.tokenFor(u, vault)
	w.must(w.a.DeleteIdentity(ctx, "telemetry", false))
	w.selfRevoke(n, 4)
	var got []string
	entries := w.audit()
	for _, e := range entries {
		text := e.Action
		if e.Outcome != allowed {
			text += " " + e.Outcome
		}
		got = append(got, text)
	}
	want := "authority-created resource-added claim-created machine-created sign identity-created identity-assigned enroll-offered sign token rekey " +
		"revoke sign denied certificate-revoked identity-unassigned token denied identity-deleted revoke machine-disconnected"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	for _, e := range entries {
		switch {
		case e.Action == "token" && e.Outcome == allowed:
			p := payload(t, decodeAs[oauthAnswer](t, a).AccessToken)
			if e.Principal != p["oid"] || e.Name != "telemetry" || e.Machine != "gw" || e.JTI != p["jti"] || len(e.Token) != 16 || e.Resource != vault ||
				float64(e.Expires.Unix()) != p["exp"] || e.Serial != u.serial() || e.Reason != "tls_client_auth" || e.Source == "" || e.Request == "" {
				t.Errorf("got %+v", e)
			}
		case e.Action == "token" && (e.Reason != "identity is not assigned to this machine" || e.Machine != "gw"):
			t.Errorf("got %+v", e)
		case strings.HasPrefix(e.Action, "identity-") && e.Principal != "uid:0":
			t.Errorf("got %+v", e)
		}
	}
}

func TestTheAuditIsAChainThatShowsTampering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	for range 5 {
		w.tokenFor(d, vault)
	}
	lines := w.lines(AuditQuery{}).Lines
	if n, err := verifyAudit(lines, ""); n != len(lines) || err != nil {
		t.Fatalf("%d of %d: %v", n, len(lines), err)
	}
	if _, err := verifyAudit(lines[3:], lineDigest(lines[2])); err != nil {
		t.Error(err)
	}
	w.restart()
	w.tokenFor(d, vault)
	if _, err := verifyAudit(w.lines(AuditQuery{Since: uint64(len(lines) + 1)}).Lines, lineDigest(lines[len(lines)-1])); err != nil {
		t.Errorf("over a restart: %v", err)
	}
	for name, change := range map[string]func([]json.RawMessage) []json.RawMessage{
		"changed": func(l []json.RawMessage) []json.RawMessage {
			l[4] = bytes.Replace(l[4], []byte("gw"), []byte("xx"), 1)
			return l
		},
		"removed": func(l []json.RawMessage) []json.RawMessage { return append(l[:4:4], l[5:]...) },
		"swapped": func(l []json.RawMessage) []json.RawMessage { l[4], l[5] = l[5], l[4]; return l },
		"no json": func(l []json.RawMessage) []json.RawMessage { l[4] = json.RawMessage("x"); return l },
	} {
		copied := append([]json.RawMessage(nil), lines...)
		if _, err := verifyAudit(change(copied), ""); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestTheAuditRingIsBoundedAndCountsWhatWasNotExported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.auditRecords = 20
	n := 0
	decide := func() {
		n++
		w.must(w.a.AddResource(context.Background(), Resource{Identifier: "x", Life: time.Hour + time.Duration(n)*time.Second}))
	}
	for range 30 {
		decide()
	}
	page := w.lines(AuditQuery{Limit: 5})
	if len(page.Lines) != 5 || page.Overwritten != 11 || page.Next != 17 {
		t.Errorf("got %d lines, next %d, %d overwritten", len(page.Lines), page.Next, page.Overwritten)
	}
	page = w.lines(AuditQuery{Since: 1})
	if len(page.Lines) != 20 {
		t.Errorf("%d records are kept", len(page.Lines))
	}
	if _, err := verifyAudit(page.Lines, ""); err != nil {
		t.Error(err)
	}
	w.lines(AuditQuery{Export: true})
	for range 20 {
		decide()
	}
	if got := w.lines(AuditQuery{}).Overwritten; got != 11 {
		t.Errorf("exported records count as lost: %d", got)
	}
	decide()
	if got := w.lines(AuditQuery{}).Overwritten; got != 12 {
		t.Errorf("%d overwritten", got)
	}
	w.a.auditRecords, w.a.auditBytes = maxAuditRecords, 1000
	decide()
	size := 0
	for _, line := range w.lines(AuditQuery{}).Lines {
		size += len(line)
	}
	if size > 1000 || size == 0 {
		t.Errorf("%d bytes are kept", size)
	}
	if got := w.lines(AuditQuery{Since: 1 << 40}); len(got.Lines) != 0 {
		t.Errorf("from beyond the end: %d", len(got.Lines))
	}
}

func TestEqualDenialsAreFolded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commits := 0
	w.a.committed = func() { commits++ }
	try := func(path, body string) { w.do(nil, "POST", path, nil, body) }
	for i := range 50 {
		try("/sign", "x")
		try("/revoke", `{"serial":"`+strings.Repeat("z", i)+`","passive":true}`) // its text differs
	}
	try("/renew", "")
	if commits != 3 {
		t.Errorf("%d writes", commits)
	}
	w.clock.add(time.Minute)
	try("/sign", "x")
	var counts []int
	for _, e := range w.audit() {
		if e.Outcome == denied {
			counts = append(counts, e.Count)
		}
	}
	if len(counts) != 4 || counts[0] != 0 || counts[1] != 0 || counts[3] != 50 {
		t.Errorf("counts %v", counts)
	}
}

func TestDenialsOfManyKindsAreBoundedTogether(t *testing.T) {
	t.Parallel()
	d := newDenials()
	now, written, passed := start, 0, 0
	flood := func(n int, kind string) {
		for i := range n {
			equal, missed := d.count(fmt.Sprint(kind, i), now)
			passed += equal + missed
			if equal > 0 {
				written++
			}
		}
	}
	flood(5000, "a")
	if written != denialsBurst {
		t.Errorf("%d written in a burst", written)
	}
	now = now.Add(time.Minute)
	flood(5000, "b")
	if written != denialsBurst+6 {
		t.Errorf("%d written a minute later", written)
	}
	now = now.Add(time.Hour)
	flood(2, "c")
	if passed != 10002 {
		t.Errorf("%d of 10002 denials are accounted for", passed)
	}
	if len(d.seen) > foldKeys {
		t.Errorf("%d are remembered", len(d.seen))
	}
}

// syncBuffer is a log that goroutines share.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestNoSecretReachesLogOrAudit(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	w := newWorld(t, func(o *Options) {
		o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w.addVault()
	claim := w.claim(ClaimRequest{Machine: "gw"})
	d := w.sign(claim)
	_, err := w.a.CreateIdentity(context.Background(), "telemetry", "")
	w.must(err)
	w.must(w.a.Assign(context.Background(), "telemetry", "gw"))
	ott := w.list(d).Identities[1].Enroll.OTT
	w.sign(ott)
	assertion := w.assertion(d, jws.ES256, nil)
	token := decodeAs[oauthAnswer](t, w.token(nil, assertionForm(d, assertion, vault))).AccessToken
	w.token(nil, assertionForm(d, assertion, vault)) // refused
	w.post(nil, "/sign", signBody(t, newKey(t), claim))
	w.post(nil, "/sign", map[string]string{"csr": csrFor(t, newKey(t), ""), "ott": claim + "x"})
	f := assertionForm(d, assertion, vault)
	f.Set("client_secret", "hunter2hunter2")
	w.token(nil, f)
	text := log.String()
	for _, line := range w.lines(AuditQuery{}).Lines {
		text += string(line)
	}
	for name, secret := range map[string]string{"claim": claim, "ott": ott, "assertion": assertion, "token": token, "secret": "hunter2hunter2"} {
		parts := strings.Split(secret, ".")
		if strings.Contains(text, parts[len(parts)-1]) {
			t.Errorf("the %s stands in log or audit", name)
		}
	}
	if !strings.Contains(text, `"event":"site-token"`) {
		t.Error("nothing was logged")
	}
}

func TestForeignTextCannotForgeLinesInTheAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := "x\n{\"seq\":1}\r\x1b[2J"
	w.do(nil, "POST", w.tokenPath(), formHeader, "grant_type=client_credentials&client_id="+strings.NewReplacer("\n", "%0a", "\r", "%0d", "\x1b", "%1b", " ", "+").Replace(evil))
	w.post(nil, "/sign", map[string]string{"csr": csrFor(t, newKey(t), evil), "ott": w.claim(ClaimRequest{Machine: "gw"})})
	for _, e := range w.audit() {
		for _, s := range []string{e.ClientID, e.Reason, e.Resource, e.Name} {
			if strings.ContainsAny(s, "\n\r\x1b") {
				t.Errorf("%q", s)
			}
		}
	}
}
