package interop

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"
)

const tokenURL = "http://localhost:40342/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fvault.azure.net"

// recipe is the one of the Arc documentation, to the letter but for the last
// line, which printed the token alone.
const recipe = `
ChallengeTokenPath=$(curl -s -D - -H Metadata:true "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net" | grep Www-Authenticate | cut -d "=" -f 2 | tr -d "[:cntrl:]")
ChallengeToken=$(cat $ChallengeTokenPath)
if [ $? -ne 0 ]; then
    echo "Could not retrieve challenge token, double check that this command is run with root privileges."
else
    curl -s -H Metadata:true -H "Authorization: Basic $ChallengeToken" "http://127.0.0.1:40342/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net"
fi
`

func TestOtherClientsOfTheWire(t *testing.T) {
	inside(t, func(t *testing.T, w *world) {
		w.connect(t)
		t.Run("documented_recipe", func(t *testing.T) {
			isToken(t, w, w.as(t, member, nil, "bash", "-c", recipe))
		})
		t.Run("documented_recipe_of_an_outsider", func(t *testing.T) {
			if out := w.as(t, outsider, nil, "bash", "-c", recipe); !strings.Contains(out, "Could not retrieve challenge token") {
				t.Errorf("an outsider reads: %s", out)
			}
		})
		t.Run("java", func(t *testing.T) {
			isToken(t, w, w.as(t, member, nil, "java", "-XX:TieredStopAtLevel=1", "-cp", "/run/tools", "Check", tokenURL))
		})
		t.Run("node_fetch", func(t *testing.T) { w.nodeFetch(t) })
		t.Run("proxy", func(t *testing.T) { w.throughProxy(t) })
		t.Run("paths", paths)
	})
}

// isToken fails the test unless body is a token of the device's own identity.
func isToken(t *testing.T, w *world, body string) {
	t.Helper()
	var a map[string]string
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if a["access_token"] == "" || a["client_id"] != w.system.ClientID || a["resource"] != vault || a["token_type"] != "Bearer" {
		t.Errorf("client id %q, resource %q, type %q", a["client_id"], a["resource"], a["token_type"])
	}
}

// nodeFetch: fetch adds sec-fetch-mode and accept-language, as a browser does.
func (w *world) nodeFetch(t *testing.T) {
	t.Helper()
	script := `const r = await fetch(process.argv[1], { headers: { Metadata: "true" } });
console.log(r.status, r.headers.get("www-authenticate"), (await r.text()).length > 0);`
	out := w.as(t, member, nil, node(), "--input-type=module", "-e", script, tokenURL)
	if !strings.HasPrefix(out, "401 Basic realm=/var/opt/azcmagent/tokens/") || !strings.HasSuffix(out, " true\n") {
		t.Errorf("fetch got %q", out)
	}
}

// throughProxy: Go uses a proxy even for 169.254.169.254. The caller reads what
// to do about it; with NO_PROXY it gets its token.
func (w *world) throughProxy(t *testing.T) {
	t.Helper()
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.Header.Set("Via", "1.1 proxy.plant.local")
	}})
	t.Cleanup(proxy.Close)
	env := []string{"HTTP_PROXY=" + proxy.URL}
	captured := w.as(t, member, env, "/run/tools/azidentity-1.15.0", "mi", vault)
	if !strings.Contains(captured, `"ok":false`) || !strings.Contains(captured, "NO_PROXY") {
		t.Errorf("through a proxy: %s", captured)
	}
	direct := w.as(t, member, append(env, "NO_PROXY=169.254.169.254"), "/run/tools/azidentity-1.15.0", "mi", vault)
	if !strings.Contains(direct, `"ok":true`) {
		t.Errorf("with NO_PROXY: %s", direct)
	}
}

// paths are what libraries probe and misspell.
func paths(t *testing.T) {
	const query = "?api-version=2020-06-01&resource=https%3A%2F%2Fvault.azure.net"
	for name, c := range map[string]struct {
		url      string
		metadata bool
		status   int
		holds    string
	}{
		"probe":             {"http://169.254.169.254/metadata/identity/oauth2/token", false, 400, "bad_request_102"},
		"dotnet probe":      {"http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01", false, 400, "bad_request_102"},
		"dotnet v2 probe":   {"http://169.254.169.254/metadata/identity/getplatformmetadata?cred-api-version=2.0", false, 404, ""},
		"v2 with header":    {"http://169.254.169.254/metadata/identity/getplatformmetadata?cred-api-version=2.0", true, 404, ""},
		"instance":          {"http://127.0.0.1:40342/metadata/instance?api-version=2020-06-01", true, 200, `"vmId"`},
		"instance imds":     {"http://169.254.169.254/metadata/instance?api-version=2017-08-01&format=json", true, 200, `"compute"`},
		"compute":           {"http://127.0.0.1:40342/metadata/instance/compute?api-version=2021-02-01", true, 200, `"osType"`},
		"instance, no head": {"http://127.0.0.1:40342/metadata/instance?api-version=2020-06-01", false, 400, "bad_request_102"},
		"version missing":   {"http://127.0.0.1:40342/metadata/instance", true, 400, "newest-versions"},
		"versions":          {"http://127.0.0.1:40342/metadata/versions", true, 200, "apiVersions"},
		"double slash":      {"http://127.0.0.1:40342//metadata/identity/oauth2/token" + query, true, 401, "unauthorized_client"},
		"slash at the end":  {"http://127.0.0.1:40342/metadata/identity/oauth2/token/" + query, true, 401, "unauthorized_client"},
		"IPv6":              {"http://[::1]:40342/metadata/identity/oauth2/token" + query, true, 401, "unauthorized_client"},
		"unknown":           {"http://127.0.0.1:40342/metadata/attested/document?api-version=2020-06-01", true, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := get(t, c.url, c.metadata)
			if status != c.status || !strings.Contains(body, c.holds) {
				t.Errorf("status %d, want %d with %q: %s", status, c.status, c.holds, body)
			}
		})
	}
}

func get(t *testing.T, url string, metadata bool) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if metadata {
		req.Header.Set("Metadata", "true")
	}
	transport := &http.Transport{} // no proxy
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req) // no redirect is followed
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}
