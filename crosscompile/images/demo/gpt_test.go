//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClaimIsNotWrittenIntoWhatIsNoImage(t *testing.T) {
	dir := t.TempDir()
	claim := filepath.Join(dir, "claim")
	image := filepath.Join(dir, "image")
	for path, content := range map[string]string{claim: "x", image: strings.Repeat("not a disk ", 1000)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := putClaim(t.Context(), image, claim); err == nil || !strings.Contains(err.Error(), "no partition table") {
		t.Errorf("putClaim: %v", err)
	}
	if content, err := os.ReadFile(image); err != nil || !strings.HasPrefix(string(content), "not a disk") {
		t.Errorf("the file was changed: %v", err)
	}
	if err := os.Truncate(claim, 0); err != nil {
		t.Fatal(err)
	}
	if err := putClaim(t.Context(), image, claim); err == nil || !strings.Contains(err.Error(), "claim is empty") {
		t.Errorf("an empty claim: %v", err)
	}
	if err := putClaim(t.Context(), filepath.Join(dir, "missing"), claim); err == nil {
		t.Error("putClaim into a missing image: no error")
	}
}
