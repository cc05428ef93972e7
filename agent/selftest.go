package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// checkSelfTest asks our own endpoint as an Azure client would: the first
// request names a file, the second proves that we could read it. As another
// user that user's own process does it.
func checkSelfTest(ctx context.Context, f *facts) finding {
	switch {
	case !f.running:
		return skip(startAgent, "no agent runs")
	case len(f.arc()) == 0:
		return skip("postern config print", "the Arc flavour is off")
	}
	if why := f.enrolled(); why.verdict != "" {
		return why
	}
	if f.asUser != "" && f.asUser != f.host.UserName(f.host.Self()) {
		return f.selfTestAs(ctx, f.asUser)
	}
	resource := "https://management.azure.com/"
	if list := f.status.Tokens.List; len(list) > 0 {
		resource = list[0].Resource // it is there already: nothing is asked of the authority
	}
	return f.selfTest(ctx, "http://"+f.arc()[0], resource)
}

// selfTest plays the two steps.
func (f *facts) selfTest(ctx context.Context, base, resource string) finding {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	began := time.Now()
	target := base + "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=" + url.QueryEscape(resource)
	first, err := askEndpoint(ctx, target, "")
	if err != nil {
		return bad("postern status", "%s does not answer: %v", base, err)
	}
	path, found := strings.CutPrefix(first.challenge, "Basic realm=")
	if first.status != http.StatusUnauthorized || !found {
		return bad("postern status", "%s answered %d without a challenge: %s", base, first.status, first.said)
	}
	secret, err := os.ReadFile(path)
	if err != nil {
		return bad("sudo usermod -aG "+f.cfg.Group+" "+f.userName()+"   # then log in again", "%s cannot read the challenge: %v", f.userName(), err)
	}
	second, err := askEndpoint(ctx, target, "Basic "+string(secret))
	switch {
	case err != nil:
		return bad("postern status", "%s does not answer: %v", base, err)
	case second.status == http.StatusOK:
		return ok("a token for %s in %d ms, as %s", resource, time.Since(began).Milliseconds(), f.userName())
	case second.status == http.StatusUnauthorized:
		return bad(only("token-dir-path"), "the challenge was read, and its content refused: %s", second.said)
	}
	return warn("postern token --resource "+resource, "the challenge works; the answer for %s was %d: %s", resource, second.status, second.said)
}

func (f *facts) userName() string {
	return orWord(f.host.UserName(f.host.Self()), f.host.Self().String())
}

// endpointAnswer is what a check keeps of an answer; never the token.
type endpointAnswer struct {
	status          int
	challenge, said string
}

func askEndpoint(ctx context.Context, target, authorization string) (endpointAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return endpointAnswer{}, err
	}
	req.Header.Set("Metadata", "true")
	req.Header.Set("User-Agent", "postern-check")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy: it is this machine
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return endpointAnswer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := endpointAnswer{status: resp.StatusCode, challenge: resp.Header.Get("Www-Authenticate")}
	if a.status != http.StatusOK {
		a.said = errorText(resp.Body)
	}
	return a, nil
}

// errorText is the endpoint's own sentence.
func errorText(r io.Reader) string {
	var body struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
	}
	if err := json.NewDecoder(io.LimitReader(r, 8<<10)).Decode(&body); err != nil {
		return fmt.Sprintf("an answer that is not ours (%v)", err)
	}
	var nested struct {
		Message string `json:"message"`
	}
	if body.Description == "" && json.Unmarshal(body.Error, &nested) == nil {
		return nested.Message
	}
	return body.Description
}
