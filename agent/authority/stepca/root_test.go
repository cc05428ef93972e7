package stepca_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/agent/authority/authoritytest"
	"postern/agent/authority/stepca"
	"postern/agent/lifecycle"
)

func TestRootIsFetchedByItsFingerprint(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		newDouble(w)
		config := w.Config()
		config.Roots = nil
		hex := w.PKI.RootSHA256()
		for _, written := range []string{hex, strings.ToUpper(hex), hex[:2] + ":" + hex[2:] + "\n"} {
			got, err := stepca.Root(t.Context(), config, base+"/", written)
			if err != nil || got != w.PKI.RootPEM() {
				t.Errorf("%q: got %q, %v", written, got, err)
			}
		}
		if off := w.Clock.Offset(); off != 0 {
			t.Errorf("a server that nobody verified set the offset to %v", off)
		}
	})
}

func TestRootMustMatchItsFingerprint(t *testing.T) {
	authoritytest.In(t, func(t *testing.T, w *authoritytest.World) {
		d := newDouble(w)
		hex := w.PKI.RootSHA256()
		leaf := w.PKI.Credential("c")
		other := authoritytest.NewPKI(t, time.Now())
		body, status := "", http.StatusOK
		d.answer = func(rw http.ResponseWriter, _ *http.Request) bool {
			rw.WriteHeader(status)
			_, _ = rw.Write([]byte(body))
			return true
		}
		ca := func(pem string) string {
			raw, err := json.Marshal(map[string]string{"ca": pem})
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
		for name, c := range map[string]struct {
			body   string
			status int
			class  lifecycle.Class
			words  string
		}{
			"another root":    {ca(other.RootPEM()), 200, lifecycle.ClassDenied, "somebody may be in the way"},
			"two of them":     {ca(w.PKI.RootPEM() + other.RootPEM()), 200, lifecycle.ClassTransient, "not one certificate"},
			"not found":       {`{"message":"gone"}`, 404, lifecycle.ClassDenied, "no root with this fingerprint"},
			"server error":    {``, 500, lifecycle.ClassTransient, "answered 500 internal server error"},
			"captive portal":  {`<html>`, 200, lifecycle.ClassTransient, "not the JSON"},
			"not PEM":         {ca("hello"), 200, lifecycle.ClassTransient, "not one certificate"},
			"right among two": {ca(other.RootPEM() + w.PKI.RootPEM()), 200, lifecycle.ClassTransient, "not one certificate"},
		} {
			body, status = c.body, c.status
			got, err := stepca.Root(t.Context(), w.Config(), base, hex)
			if got != "" {
				t.Errorf("%s: got %q", name, got)
			}
			authoritytest.WantError(t, err, c.class, c.words)
		}
		// A fingerprint of something that is no authority.
		body, status = ca(pemOf(leaf.Leaf())), http.StatusOK
		_, err := stepca.Root(t.Context(), w.Config(), base, fingerprintOf(leaf.Leaf().Raw))
		authoritytest.WantError(t, err, lifecycle.ClassTransient, "not that of a certificate authority")
		before := len(w.Net.Dialled())
		for _, bad := range []string{"", "ab", strings.Repeat("zz", 32), hex + "00"} {
			_, err := stepca.Root(t.Context(), w.Config(), base, bad)
			authoritytest.WantError(t, err, lifecycle.ClassDenied, "not a SHA-256")
		}
		if len(w.Net.Dialled()) != before {
			t.Error("a bad fingerprint was asked for")
		}
	})
}
