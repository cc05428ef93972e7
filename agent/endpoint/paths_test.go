package endpoint

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestPathToleratesSlashesAndNothingElse(t *testing.T) {
	r := newRig(t, IMDS)
	query := "?api-version=2020-06-01&resource=" + vault
	for path, want := range map[string]int{
		pathToken: 200, pathToken + "/": 200, "/" + pathToken: 200, "//metadata//identity/oauth2///token//": 200,
		"/metadata/identity/oauth2/token/x": 404, "/metadata/identity/oauth2/toke": 404, "/metadata/identity/oauth2": 404, "/": 404, "//": 404,
		"/metadata/./identity/oauth2/token": 404, "/metadata/x/../identity/oauth2/token": 404, "/Metadata/identity/oauth2/token": 404,
		"/metadata/identity/oauth2/%74oken": 404, "/metadata/identity/oauth2/token%2f": 404, "/metadata/identity/oauth2/token;x": 404,
		"/metadata/identity/oauth2/token#x": 404, "/msi/token": 404, "/%2e%2e/metadata/identity/oauth2/token": 404,
	} {
		if rep := r.get(path + query); rep.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, rep.StatusCode, want)
		}
	}
}

func TestNoRedirectEver(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS, AppService} {
		r := newRig(t, flavour)
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "TRACE", "PATCH", "FOO"} {
			for _, path := range []string{"/", "//", "/metadata", "/metadata/", pathToken, pathToken + "/", "//msi/token/", "/metadata/instance/", "/a/../b", "/metadata/identity"} {
				rep := r.raw(method, method+" "+path+" HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n")
				if rep.StatusCode < 400 && rep.StatusCode != http.StatusOK && rep.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s %s: %d", method, path, rep.StatusCode)
				}
				mustAlwaysSend(t, rep)
			}
		}
	}
}

// mustAlwaysSend checks the headers that every answer of ours has, and those
// that none may have.
func mustAlwaysSend(t *testing.T, rep reply) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := rep.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for name := range rep.Header {
		if strings.HasPrefix(name, "Access-Control-") || name == "Location" || name == "Set-Cookie" || name == "Server" {
			t.Errorf("header %s must never be sent", name)
		}
	}
}

func TestEP2OtherMethodsGet405AndMakeNoFile(t *testing.T) {
	r := newRig(t, Arc)
	for _, method := range []string{"POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "get", "GETX"} {
		rep := r.raw(method, method+" "+tokenURI+" HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n")
		if rep.StatusCode != http.StatusMethodNotAllowed || rep.Header.Get("Allow") != "GET" {
			t.Errorf("%s: %d, Allow %q", method, rep.StatusCode, rep.Header.Get("Allow"))
		}
		mustAlwaysSend(t, rep)
	}
	if f := r.files(); len(f) != 0 {
		t.Errorf("files: %q", f)
	}
}

func TestCertificateBoundProtocolIs404WithAndWithoutTheHeader(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS} {
		r := newRig(t, flavour)
		for _, path := range []string{
			"/metadata/identity/getplatformmetadata?cred-api-version=2.0", "/metadata/identity/issuecredential?cred-api-version=2.0",
			"/metadata/attested/document", "/metadata/scheduledevents", "/metadata/loadbalancer",
		} {
			for _, method := range []string{"GET", "POST"} {
				for _, header := range []string{"", "Metadata: true\r\n"} {
					rep := r.raw(method, method+" "+path+" HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n")
					if rep.StatusCode != http.StatusNotFound {
						t.Errorf("%s %s %q: %d, want 404", method, path, header, rep.StatusCode)
					}
				}
			}
		}
	}
}

func TestProbesWithoutMetadataGet400AndNoFile(t *testing.T) {
	for _, flavour := range []Flavour{Arc, IMDS} {
		r := newRig(t, flavour)
		for _, uri := range []string{pathToken, pathToken + "?api-version=2018-02-01", tokenURI, "/metadata/instance?api-version=2017-08-01"} {
			rep := r.raw(http.MethodGet, "GET "+uri+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
			r.must(rep, http.StatusBadRequest, `"error":"bad_request_102","error_description":"Required metadata header not specified"`)
		}
		if len(r.files()) != 0 || r.denied() != nil {
			t.Errorf("%s: files %q, denials %+v; a probe is no offence", flavour, r.files(), r.denied())
		}
	}
}

func TestBothLoopbackFamiliesAreServed(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Logf("this machine has no IPv6, 127.0.0.1 was tried alone: %v", err)
		return
	}
	r := newRigOn(t, Arc, l)
	for _, host := range []string{"[::1]:" + r.port(), "localhost:" + r.port(), "[::1]", "localhost"} {
		rep := r.raw(http.MethodGet, "GET "+tokenURI+" HTTP/1.1\r\nHost: "+host+"\r\nMetadata: true\r\n\r\n")
		r.mustChallenge(rep)
	}
}
