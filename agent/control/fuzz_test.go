package control

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"postern/agent/lifecycle"
	"postern/platform"
	"postern/platform/platformtest"
)

// FuzzRequest: every local account may write to the socket. Whatever it sends,
// the agent is asked for nothing that its rank does not allow, and a refusal is
// one document with an exit code.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/token", hostName, `{"resource":"https://vault.azure.net"}`, uint8(1))
	f.Add("POST", "/v1/connect", hostName, `{"claim":"x","again":true}`, uint8(2))
	f.Add("POST", "/v1/reset", hostName, `{"what":"cache"}`, uint8(3))
	f.Add("GET", "/v1/wait?for=Connected&timeout=1ns", hostName, "", uint8(0))
	f.Add("GET", "/v1/audit?from=18446744073709551615&follow", hostName, "", uint8(2))
	f.Add("GET", "/v1/../v1/status", "localhost", "{", uint8(0))
	sim := platformtest.NewSim(f)
	peers := []platform.Peer{platform.Unknown, member, root, stranger}
	f.Fuzz(func(t *testing.T, method, target, host, body string, who uint8) {
		r, err := http.NewRequest(method, "http://"+hostName, strings.NewReader(body)) //nolint:noctx // none leaves this process
		if err != nil {
			t.Skip()
		}
		if r.URL, err = r.URL.Parse(target); err != nil {
			t.Skip()
		}
		peer := peers[int(who)%len(peers)]
		agent := &stub{state: lifecycle.Connected}
		s := NewServer(agent, sim, "himds", slog.New(slog.DiscardHandler))
		r.Host = host
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), peerKey{}, peer))
		cancel() // nobody waits
		rec := httptest.NewRecorder()
		s.routes().ServeHTTP(rec, r.WithContext(ctx))
		for _, asked := range agent.asked {
			may := peer == root || peer == member && strings.HasPrefix(asked, "token ")
			if host != hostName || !may {
				t.Errorf("%v asked the agent for %q as host %q", peer, asked, host)
			}
		}
		if rec.Code != http.StatusUnprocessableEntity {
			return
		}
		var fault Fault
		raw, err := io.ReadAll(rec.Body)
		if err == nil {
			err = json.Unmarshal(raw, &fault)
		}
		if err != nil || fault.Exit == ExitDone || fault.ID == "" || fault.Message == "" {
			t.Errorf("%q: %v", raw, err)
		}
	})
}
