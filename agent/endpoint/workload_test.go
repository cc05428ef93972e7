package endpoint

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/token"
	"postern/platform"
	"postern/store"
)

const appURI = pathAppService + "?api-version=2019-08-01&resource=" + vault

// bare is an App Service request as clients send it: no Metadata.
func bare(headers ...string) string {
	return "GET " + appURI + " HTTP/1.1\r\nHost: localhost\r\n" + lines(headers) + "\r\n"
}

func TestWorkloadIsItsSecretWhateverItsAccount(t *testing.T) {
	r := newRig(t, AppService)
	for _, p := range []platform.Peer{"uid:0", "uid:65534", "", "sid:S-1-5-18"} {
		r.setPeer(p)
		r.must(r.raw(http.MethodGet, bare("X-IDENTITY-HEADER: "+webSecret)), http.StatusOK, canary)
	}
	want := token.Caller{Peer: "workload:web", Listener: "workload:web"}
	for _, asked := range r.stub.asked() {
		if asked.Caller != want {
			t.Errorf("caller %+v", asked.Caller)
		}
	}
}

func TestWrongSecretGets401WithoutChallenge(t *testing.T) {
	for _, headers := range [][]string{
		{},
		{"X-IDENTITY-HEADER:"},
		{"X-IDENTITY-HEADER: x"},
		{"X-IDENTITY-HEADER: " + webSecret + "x"},
		{"X-IDENTITY-HEADER: " + webSecret[1:]},
		{"X-IDENTITY-HEADER: " + strings.ToUpper(webSecret)},
		{"X-IDENTITY-HEADER: " + webSecret, "X-IDENTITY-HEADER: " + webSecret},
		{"X-IDENTITY-HEADER: " + strings.Repeat("x", 300)},
		{"Authorization: Basic " + webSecret},
		{"Metadata: true"},
		{"Secret: " + webSecret},
	} {
		r := newRig(t, AppService)
		rep := r.raw(http.MethodGet, bare(headers...))
		r.must(rep, http.StatusUnauthorized, `"error":"unauthorized_client"`)
		mustAlwaysSend(t, rep)
		if rep.Header.Get("Www-Authenticate") != "" || len(r.stub.asked()) != 0 || len(r.files()) != 0 {
			t.Errorf("%q: realm %q, %d requests, files %q", headers, rep.Header.Get("Www-Authenticate"), len(r.stub.asked()), r.files())
		}
		if d := r.denied(); len(d) != 1 || d[0].Listener != "workload:web" || d[0].Reason != "workload secret is wrong" {
			t.Errorf("%q: denials %+v", headers, d)
		}
		if log := r.logged(); strings.Contains(log, webSecret[1:20]) {
			t.Error("a secret stands in the log")
		}
	}
}

func TestEleventhWrongSecretInAMinuteGets429AndTheRightOneStillPasses(t *testing.T) {
	r := newRig(t, AppService)
	l := r.dial()
	for i := range 15 {
		want := http.StatusUnauthorized
		if i >= maxFailures {
			want = http.StatusTooManyRequests
		}
		rep := l.ask(http.MethodGet, bare("X-IDENTITY-HEADER: wrong"))
		if rep.StatusCode != want {
			t.Errorf("failure %d: %d, want %d", i+1, rep.StatusCode, want)
		}
		if want == http.StatusTooManyRequests && rep.Header.Get("Retry-After") != "10" {
			t.Errorf("Retry-After %q", rep.Header.Get("Retry-After"))
		}
	}
	r.must(l.ask(http.MethodGet, bare("X-IDENTITY-HEADER: "+webSecret)), http.StatusOK, canary)
}

func TestFailuresAreForgottenAfterAMinuteAndCountedByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWorkload("web", Digest(store.NewSecret("right")))
		a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		for range maxFailures {
			if w.failed(a) {
				t.Fatal("one too few")
			}
		}
		if !w.failed(a) || w.failed(b) {
			t.Error("an address pays for another")
		}
		time.Sleep(failureTime)
		if w.failed(a) {
			t.Error("not forgotten after a minute")
		}
	})
}

func TestFailuresOfManyAddressesStayBounded(t *testing.T) {
	w := NewWorkload("web", Digest(store.NewSecret("right")))
	for i := range 10_000 {
		w.failed(netip.MustParseAddr(fmt.Sprintf("10.1.%d.%d", i/256, i%256)))
	}
	if n := len(w.failures); n > maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestRotatedSecretWorksForAnother10Minutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		digest := func(s string) [32]byte { return Digest(store.NewSecret(s)) }
		w := NewWorkload("web", digest("one"))
		w.Rotate(digest("one")) // to itself: nothing becomes old
		w.Rotate(digest("two"))
		if !w.holds("one") || !w.holds("two") || w.holds("three") {
			t.Error("after one rotation one and two are valid")
		}
		time.Sleep(oldSecretLife - time.Nanosecond)
		if !w.holds("one") {
			t.Error("the old value ended early")
		}
		time.Sleep(time.Nanosecond)
		if w.holds("one") || !w.holds("two") {
			t.Error("the old value works after 10 minutes")
		}
		w.Rotate(digest("three"))
		w.Rotate(digest("four"))
		if w.holds("two") || !w.holds("three") || !w.holds("four") {
			t.Error("only one old value may work")
		}
		if new(Workload).holds("") || NewWorkload("x", [32]byte{}).holds("") {
			t.Error("a workload without a secret lets somebody in")
		}
	})
}

func TestRevokedSecretsOpenNothing(t *testing.T) {
	digest := func(s string) [32]byte { return Digest(store.NewSecret(s)) }
	w := NewWorkload("web", digest("one"))
	w.Rotate(digest("two"))
	w.Revoke([32]byte{1})
	if w.holds("one") || w.holds("two") || w.holds("") {
		t.Error("a revoked secret lets somebody in")
	}
	w.Rotate(digest("three"))
	if w.holds("one") || w.holds("two") || !w.holds("three") {
		t.Error("after a revocation only the new secret is good")
	}
}

func TestOnlyTheTokenPathExistsForWorkloads(t *testing.T) {
	r := newRig(t, AppService)
	for _, path := range []string{pathToken, "/metadata/instance?api-version=2021-02-01", "/metadata/versions", "/metadata/identity/info?api-version=2021-02-01", "/msi", "/msi/token/x"} {
		if rep := r.get(path, "X-IDENTITY-HEADER: "+webSecret); rep.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, rep.StatusCode)
		}
	}
}

func TestIMDSServesOnlyWhoMay(t *testing.T) {
	r := newRig(t, IMDS)
	for _, p := range []struct {
		peer     string
		contains string
	}{
		{"uid:1002", "uid 1002 may not use the IMDS flavour (imds.allow = \\\"granted\\\"). sudo postern grant 1002"},
		{"uid:0", "uid 0 may not"},
		{"", "unknown callers may not"},
		{"sid:S-1-5-18", "sid:S-1-5-18 callers may not"},
	} {
		r.setPeer(platform.Peer(p.peer))
		rep := r.get(tokenURI)
		r.must(rep, http.StatusForbidden, `"error":"access_denied"`)
		r.must(rep, http.StatusForbidden, p.contains)
	}
	if n := len(r.stub.asked()); n != 0 {
		t.Errorf("the broker was asked %d times", n)
	}
	r.setPeer(alice)
	r.must(r.get(tokenURI), http.StatusOK, canary)

	closed := newRig(t, IMDS, func(o *Options) { o.MayIMDS = nil })
	closed.must(closed.get(tokenURI), http.StatusForbidden, "access_denied")
}

func TestIMDSGateIsAskedAtMostOnceASecondForAConnection(t *testing.T) {
	inBubble(t, IMDS, func(t *testing.T, b *bubble) {
		asked, allow := 0, true
		b.server.o.MayIMDS = func(platform.Peer) bool { asked++; return allow }
		l := b.connect(alice)
		for range 50 {
			b.must(l.ask(http.MethodGet, request(tokenURI)), http.StatusOK, canary)
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		allow = false
		time.Sleep(imdsEvery)
		b.must(l.ask(http.MethodGet, request(tokenURI)), http.StatusForbidden, "access_denied")
	})
}
