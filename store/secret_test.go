package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "canary-7f3a"

func TestSecretShowsInNoWayOfPrinting(t *testing.T) {
	type inside struct{ s Secret }
	type outside struct {
		S Secret
		P *Secret
	}
	s := NewSecret(canary)
	var out bytes.Buffer
	for _, v := range []any{s, &s, inside{s}, &inside{s}, outside{s, &s}, []Secret{s}, map[string]Secret{"k": s}, errors.Join(fmt.Errorf("x %v", s))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3v", "%T"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		text, err := json.Marshal(v)
		must(t, err)
		out.Write(text)
	}
	if text := out.String(); strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
		t.Fatalf("it shows in\n%s", text)
	}
}

func TestSecretsCompareByValue(t *testing.T) {
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(NewSecret("b")) || NewSecret("a").Equal(Secret{}) {
		t.Fatal("Equal does not compare values")
	}
	if !NewSecret("").Empty() || !(Secret{}).Empty() || NewSecret("a").Empty() || NewSecret("a").Reveal() != "a" {
		t.Fatal("Empty or Reveal")
	}
	if got := NewSecret("a").Digest8(); got != "ca978112" {
		t.Fatalf("Digest8 %s, want the first 8 digits of the SHA-256", got)
	}
}
