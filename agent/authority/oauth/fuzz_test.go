package oauth

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/lifecycle"
)

// Whatever a server answers: a token that is handed out keeps the limits, and
// a refusal has a class and one printable line.
func FuzzTokenAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"a.b.c","token_type":"Bearer","expires_in":3600}`,
		`{"access_token":"e30.eyJhdWQiOiJyIn0.eA","token_type":"bearer","expires_in":"60"}`,
		`{"error":"invalid_client","error_description":"AADSTS700027: x","error_codes":[700027]}`,
		`{"error":"\u0000","error_description":7}`, `{}`, `[]`, ``,
	} {
		f.Add(200, []byte(seed), "r")
		f.Add(401, []byte(seed), "r")
	}
	i, err := New(Config{TokenURL: "https://a.test", ResourceParam: ResourceParam})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, resource string) {
		resp := &authority.Response{Status: status, Header: http.Header{}, Body: body}
		got, err := i.answer(resp, resource)
		if err == nil {
			if v := got.Value.Reveal(); status != 200 || !isWord(v) || len(v) > maxToken || got.ExpiresIn <= 0 || got.ExpiresIn > 25*time.Hour {
				t.Fatalf("%q for %v", v, got.ExpiresIn)
			}
			return
		}
		text := err.Error()
		if r, ok := err.(*refusal); ok { //nolint:errorlint // as answer returns it
			if class := i.classOf(r); class < lifecycle.ClassTransient || class > lifecycle.ClassDenied {
				t.Fatalf("class %v", class)
			}
			text = r.Error() + r.code() + r.reason()
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(text) > 2000 {
			t.Fatalf("%q", text)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://a.test","token_endpoint":"https://a.test/t","mtls_endpoint_aliases":{"token_endpoint":"https://m.test/t"}}`))
	f.Add([]byte(`{"issuer":"https://a.test/x","token_endpoint":"http://a.test/t"}`))
	i, err := New(Config{Issuer: "https://a.test", Auth: TLSClientAuth})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		end, err := i.readMetadata(body)
		if err != nil {
			return
		}
		if !isHTTPS(end.token) || !strings.HasPrefix(strings.ToLower(end.issuer), "https://a.test") {
			t.Fatalf("%+v", end)
		}
	})
}
