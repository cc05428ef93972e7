package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"postern/agent/credential"
	"postern/agent/token"
	"postern/platform"
)

func TestTokenIsServedInEveryFlavour(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS, AppService} {
		r := newRig(t, flavour)
		r.must(r.ask(tokenURI), http.StatusOK, canary)
		asked := r.stub.asked()
		if len(asked) != 1 || asked[0].Resource != vault || asked[0].ClientID != system.ClientID || asked[0].Flavour != string(flavour) {
			t.Errorf("%s: the broker was asked for %+v", flavour, asked)
		}
		want := token.Caller{Peer: alice, Listener: r.addr}
		if flavour == AppService {
			want = token.Caller{Peer: "workload:web", Listener: "workload:web"}
		}
		if asked[0].Caller != want {
			t.Errorf("%s: caller %+v, want %+v", flavour, asked[0].Caller, want)
		}
	}
}

func TestChallengeComesFirstInEveryState(t *testing.T) {
	r := newRig(t, Arc)
	for _, tc := range stateRows() {
		r.stub.fail(tc.err)
		r.mustChallenge(r.get(tokenURI))
	}
	if n := len(r.stub.asked()); n != 0 {
		t.Errorf("the broker was asked %d times before any key was shown", n)
	}
}

func TestKeySurvivesA503AndA429(t *testing.T) {
	r := newRig(t, Arc)
	key := r.key(r.get(tokenURI))
	for _, err := range []error{&token.StateError{State: 7}, &token.LimitError{Limit: "x"}, errors.New("bug")} {
		r.stub.fail(err)
		if rep := r.get(tokenURI, "Authorization: Basic "+key); rep.StatusCode == http.StatusUnauthorized {
			t.Fatalf("%v: [401, %d, 401] is the end for Go and JavaScript clients", err, rep.StatusCode)
		}
	}
	r.stub.answer(nil)
	r.must(r.get(tokenURI, "Authorization: Basic "+key), http.StatusOK, canary)
}

func TestKeyEarnsOneTokenHoweverManyAsk(t *testing.T) {
	r := newRig(t, Arc)
	key := r.key(r.get(tokenURI))
	var inside sync.WaitGroup
	inside.Add(8)
	r.stub.answer(func(_ context.Context, q token.Request) (token.Token, error) {
		inside.Done()
		inside.Wait() // all have shown the key before any is answered
		return goodToken(q), nil
	})
	replies := make(chan reply, 8)
	for range 8 {
		l := r.dial()
		go func() {
			rep, err := l.tryRead(http.MethodGet)
			if err != nil {
				rep = reply{Response: &http.Response{}}
			}
			replies <- rep
		}()
		l.send(request(tokenURI, "Authorization: Basic "+key))
	}
	got := make(map[int]int)
	for range 8 {
		got[(<-replies).StatusCode]++
	}
	if got[http.StatusOK] != 1 || got[http.StatusUnauthorized] != 7 {
		t.Errorf("statuses %v, want one 200 and seven 401", got)
	}
}

func TestUsedKeyGetsAFreshChallenge(t *testing.T) {
	r := newRig(t, Arc)
	key := r.key(r.get(tokenURI))
	r.must(r.get(tokenURI, "Authorization: Basic "+key), http.StatusOK, canary)
	if len(r.files()) != 0 {
		t.Errorf("files after the 200: %q", r.files())
	}
	r.mustChallenge(r.get(tokenURI, "Authorization: Basic "+key))
}

// azidentity 1.5.2 names the identity in its second request only.
func TestSelectorMayComeInTheSecondRequestOnly(t *testing.T) {
	r := newRig(t, Arc)
	key := r.key(r.get(tokenURI))
	r.must(r.get(tokenURI+"&client_id="+system.ClientID, "Authorization: Basic "+key), http.StatusOK, canary)
	if got := r.stub.selected; len(got) != 1 || got[0] != (credential.Selector{Key: "client_id", Value: system.ClientID}) {
		t.Errorf("selected %+v", got)
	}
}

func TestEchoIsUnderTheKeyThatWasAskedAndInRecordedSpelling(t *testing.T) {
	r := newRig(t, IMDS)
	for key, want := range map[string]string{
		"client_id":    `"client_id":"` + system.ClientID + `"`,
		"object_id":    `"object_id":"` + system.ObjectID + `"`,
		"principal_id": `"principal_id":"` + system.ObjectID + `"`,
		"msi_res_id":   `"msi_res_id":"` + system.ResourceID + `"`,
		"mi_res_id":    `"mi_res_id":"` + system.ResourceID + `"`,
	} {
		rep := r.get(tokenURI + "&" + key + "=AbC")
		if rep.StatusCode != 200 || strings.Count(rep.body, want) != 1 || strings.Count(rep.body, `"client_id"`) != 1 {
			t.Errorf("%s: %s", key, rep.body)
		}
	}
}

// A squatter on the port passes the client's request on to us: the challenge is
// made for the squatter and not valid for anybody else, nor the client's for him.
func TestRelayedChallengeIsWorthNothing(t *testing.T) {
	r := newRig(t, Arc)
	key := r.key(r.get(tokenURI))
	for _, p := range []platform.Peer{bob, "uid:0", platform.Unknown} {
		r.setPeer(p)
		r.mustChallenge(r.get(tokenURI, "Authorization: Basic "+key))
	}
	r.setPeer(alice)
	r.must(r.get(tokenURI, "Authorization: Basic "+key), http.StatusOK, canary)
	denied := r.denied()
	if len(denied) != 3 || denied[0].Event != "challenge-refused" || denied[0].Reason != "challenge: made for uid:1001, presented by uid:1002" {
		t.Errorf("denials %+v", denied)
	}
}

func TestEP3EveryOtherAuthorizationGetsAFreshChallenge(t *testing.T) {
	r := newRig(t, Arc)
	key := r.key(r.get(tokenURI))
	for _, h := range []string{
		"Authorization:", "Authorization: Basic", "Authorization: Basic ", "Authorization: Bearer " + key, "Authorization: " + key,
		"Authorization: Basic  " + key, "Authorization: Basic " + key + "x", "Authorization: Basic " + strings.Repeat("a", 300),
		"Authorization: Basic " + key + "\r\nAuthorization: Basic " + key, "Authorization: Basic\t" + key, "Authorization: Basic " + key[:42],
		"Authorization: Basic \"" + key + "\"", "Authorization: Basic realm=" + key,
	} {
		fresh := r.mustChallenge(r.get(tokenURI, h))
		if rep := r.get(tokenURI, "Authorization: Basic "+fresh); rep.StatusCode != 200 {
			t.Fatalf("%q: the fresh key gets %d", h, rep.StatusCode)
		}
	}
	for _, h := range []string{"Authorization: basic ", "authorization: BASIC "} {
		r.must(r.get(tokenURI, h+key), http.StatusOK, canary)
		key = r.key(r.get(tokenURI))
	}
	rep := r.get(tokenURI, "Authorization: Basic "+strings.Repeat("a", 1<<20))
	if rep.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("1 MB of Authorization: %d, want 431", rep.StatusCode)
	}
}

func TestEP4KeepAlivePipeliningAndOtherConnectionsMakeNoDifference(t *testing.T) {
	r := newRig(t, Arc)
	l := r.dial()
	key := r.key(l.ask(http.MethodGet, request(tokenURI)))
	if rep := l.ask(http.MethodGet, request(tokenURI, "Authorization: Basic "+key)); rep.StatusCode != 200 {
		t.Errorf("same connection: %d", rep.StatusCode)
	}
	key = r.key(l.ask(http.MethodGet, request(tokenURI)))
	if rep := r.get(tokenURI, "Authorization: Basic "+key); rep.StatusCode != 200 {
		t.Errorf("another connection: %d", rep.StatusCode)
	}
	key = r.key(l.ask(http.MethodGet, request(tokenURI)))
	l.send(request("/metadata/versions") + request(tokenURI, "Authorization: Basic "+key) + request("/nothing"))
	for i, want := range []int{200, 200, 404} {
		if rep := l.read(http.MethodGet); rep.StatusCode != want {
			t.Errorf("pipelined answer %d: %d, want %d", i+1, rep.StatusCode, want)
		}
	}
}

func TestEP6CallerThatHangsUpEndsOnlyItsOwnCall(t *testing.T) {
	r := newRig(t, IMDS)
	started, ended := make(chan struct{}), make(chan error, 1)
	r.stub.answer(func(ctx context.Context, _ token.Request) (token.Token, error) {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return token.Token{}, ctx.Err()
	})
	l := r.dial()
	l.send(request(tokenURI))
	<-started
	_ = l.c.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the broker's context ended with %v", err)
	}
	r.stub.answer(nil)
	r.must(r.get(tokenURI), http.StatusOK, canary)
}

func TestMetadataHeaderIsComparedWithoutCase(t *testing.T) {
	r := newRig(t, IMDS)
	for _, v := range []string{"true", "True", "TRUE", "tRuE", " true ", "true\t"} {
		rep := r.raw(http.MethodGet, "GET "+tokenURI+" HTTP/1.1\r\nHost: localhost\r\nmetadata: "+v+"\r\n\r\n")
		r.must(rep, http.StatusOK, canary)
	}
}

// Measured with msal-node 5.6.0 and 7.2.1 over Node's fetch, and with the others
// over their own clients.
func TestHeaderSetsOfRealClientsPass(t *testing.T) {
	for name, headers := range map[string][]string{
		"msal-node": {
			"connection: keep-alive", "accept: */*", "accept-language: *", "sec-fetch-mode: cors", "user-agent: node",
			"accept-encoding: gzip, deflate", "x-client-SKU: msal.js.node", "x-client-VER: 5.6.0", "x-client-OS: linux",
			"Content-Type: application/x-www-form-urlencoded;charset=utf-8",
		},
		"azidentity": {"User-Agent: azsdk-go-azidentity/v1.15.0 (go1.26; linux)", "Accept-Encoding: gzip", "X-Ms-Client-Request-Id: 11111111-2222-3333-4444-555555555555"},
		"python":     {"Accept-Encoding: identity", "User-Agent: Python-urllib/3.12", "Connection: close"},
		"curl":       {"User-Agent: curl/8.5.0", "Accept: */*"},
		"powershell": {"User-Agent: Mozilla/5.0 (Linux; Ubuntu) PowerShell/7.4.6", "Accept-Encoding: gzip, deflate, br"},
		"java":       {"User-Agent: Java/17", "Accept: text/html, image/gif, image/jpeg, */*; q=0.2", "Connection: keep-alive", "Cache-Control: no-cache", "Pragma: no-cache"},
		"no length":  {"Content-Length: 0"},
		"trace":      {"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Cookie: a=b", "Expect: 100-continue"},
	} {
		for _, flavour := range []Flavour{Arc, IMDS, AppService} {
			if rep := newRig(t, flavour).ask(tokenURI, headers...); rep.StatusCode != http.StatusOK {
				t.Errorf("%s, %s: %d %s", name, flavour, rep.StatusCode, rep.body)
			}
		}
	}
}

// The documentation's recipe, with our port.
func TestBashRecipeVerbatim(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed: the recipe was not run")
	}
	r := newRig(t, Arc)
	recipe := fmt.Sprintf(`
ChallengeTokenPath=$(curl -s -D - -H Metadata:true "http://127.0.0.1:%[1]s/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%%3A%%2F%%2Fmanagement.azure.com" | grep Www-Authenticate | cut -d "=" -f 2 | tr -d "[:cntrl:]")
ChallengeToken=$(cat $(echo $ChallengeTokenPath | sed s,/var/opt/azcmagent/tokens,%[2]s,))
if [ $? -ne 0 ]; then
    echo "Could not retrieve challenge token, double check that this command is run with root privileges."
else
    curl -s -H Metadata:true -H "Authorization: Basic $ChallengeToken" "http://127.0.0.1:%[1]s/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%%3A%%2F%%2Fmanagement.azure.com"
fi
`, r.port(), r.tokens)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", recipe)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"} // no proxy
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"resource":"https://management.azure.com"`) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestResourceIsTakenVerbatimAndOneDefaultSuffixStripped(t *testing.T) {
	r := newRig(t, IMDS)
	for asked, want := range map[string]string{
		"https://vault.azure.net":                    "https://vault.azure.net",
		"https://vault.azure.net/":                   "https://vault.azure.net/",
		"https://vault.azure.net/.default":           "https://vault.azure.net",
		"https://vault.azure.net//.default":          "https://vault.azure.net/",
		"https://x//user_impersonation":              "https://x//user_impersonation",
		"api%3A%2F%2F7b1e":                           "api://7b1e",
		"00000003-0000-0000-c000-000000000000":       "00000003-0000-0000-c000-000000000000",
		"urn:ms:test":                                "urn:ms:test",
		"https%3a%2f%2fa%2Fb%22%5c":                  `https://a/b"\`,
		"https://x/.default/.default":                "https://x/.default",
		"HTTPS://Vault.Azure.NET":                    "HTTPS://Vault.Azure.NET",
		strings.Repeat("r", maxResource):             strings.Repeat("r", maxResource),
		strings.Repeat("%72", maxResource):           "",
		"https://x?a=b":                              "https://x?a=b",
		"https://x" + strings.Repeat("/.default", 1): "https://x",
	} {
		rep := r.get(pathToken + "?api-version=2020-06-01&resource=" + asked)
		if want == "" {
			r.must(rep, http.StatusBadRequest, "6144")
			continue
		}
		r.must(rep, http.StatusOK, `"resource":`+string(appendString(nil, want))+`,`)
		all := r.stub.asked()
		if got := all[len(all)-1].Resource; got != want {
			t.Errorf("%s: the broker was asked for %q, want %q", asked, got, want)
		}
	}
}

func TestRefreshDigestReachesTheBrokerOnlyWellFormed(t *testing.T) {
	r := newRig(t, IMDS)
	digest := strings.Repeat("0af9", 16)
	for asked, want := range map[string]string{
		digest: digest, strings.ToUpper(digest): "", digest[1:]: "", "x": "",
	} {
		r.must(r.get(tokenURI+"&token_sha256_to_refresh="+asked), http.StatusOK, canary)
		all := r.stub.asked()
		if got := all[len(all)-1].RefreshDigest; got != want {
			t.Errorf("%s: %q", asked, got)
		}
	}
}

func TestAgentIsCutAt256Bytes(t *testing.T) {
	r := newRig(t, IMDS)
	r.must(r.get(tokenURI, "User-Agent: "+strings.Repeat("u", 400)), http.StatusOK, canary)
	if got := r.stub.asked()[0].Caller.Agent; got != strings.Repeat("u", 256) {
		t.Errorf("agent has %d bytes", len(got))
	}
}
