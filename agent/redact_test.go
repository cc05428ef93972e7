package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"postern/agent/config"
)

// TestWhatLooksLikeASecretIsHidden: the second line behind store.Secret.
func TestWhatLooksLikeASecretIsHidden(t *testing.T) {
	const canary = "c4n4ryc4n4ryc4n4ry"
	for name, text := range map[string]string{
		"token":     "got eyJhbGciOiJFUzI1NiJ9.eyJzdWIi" + canary + "." + canary,
		"key":       "-----BEGIN PRIVATE KEY-----\n" + canary + "\n-----END PRIVATE KEY-----\n",
		"form":      "grant_type=client_credentials&client_secret=" + canary + "&scope=x",
		"assertion": "client_assertion_type=jwt&client_assertion=" + canary,
		"header":    "Authorization: Bearer " + canary,
	} {
		for _, form := range []string{"logfmt", "json"} {
			var out bytes.Buffer
			log := newLog(config.Config{Log: form, LogLevel: "info"}, redactor{&out}, strings.ToUpper)
			log.Info("said", "text", text, "reason", errors.New(text))
			log.WithGroup("group").Warn(text)
			if said := out.String(); strings.Contains(said, canary) || strings.Count(said, hidden) != 3 {
				t.Errorf("%s as %s: %s", name, form, said)
			}
		}
	}
	for text, want := range map[string]string{
		"x eyJhbGciOiJ9.e30. y":                     "x " + hidden + " y", // unsigned
		"eyJhbGciOiJ9.e30.a.eyJhbGciOiJ9.e30.b":     hidden + "." + hidden,
		"Authorization: Basic abc def":              hidden + " def",
		"AUTHORIZATION:abc":                         hidden,
		"authorization:  two spaces":                "authorization:  two spaces",
		"Client_Secret=a&client_assertion=b\\n":     hidden + "&" + hidden + "\\n",
		"client_secret=&x":                          "client_secret=&x",
		"-----BEGIN RSA PRIVATE KEY-----\nMIIE":     hidden + "\nMIIE",
		"eyJshort.e30.x eyJhbGciOiJ9.e.x eyJ größe": "eyJshort.e30.x eyJhbGciOiJ9.e.x eyJ größe",
		"": "",
	} {
		var out bytes.Buffer
		if n, err := (redactor{&out}).Write([]byte(text)); n != len(text) || err != nil || out.String() != want {
			t.Errorf("%q became %q, want %q; %d, %v", text, out.String(), want, n, err)
		}
	}
	var out bytes.Buffer
	const harmless = "client_assertion_type=urn:x authorization is missing; eyJ is how one begins; token 9f2c41aa\n"
	if n, err := (redactor{&out}).Write([]byte(harmless)); n != len(harmless) || err != nil || out.String() != harmless {
		t.Errorf("%d, %v: %s", n, err, out.String())
	}
}
