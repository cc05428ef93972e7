package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rootsOf says in a child process what to do before it asks for the system's
// roots, which Go reads once for each process.
const rootsOf = "POSTERN_TEST_ROOTS_OF"

// TestEnvironmentDoesNotChooseRoots: with the variables a stranger's root is the
// system's, until the program begins.
func TestEnvironmentDoesNotChooseRoots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roots.pem")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a stranger"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]string{"any program": "believed", "postern": "unknown"} {
		for _, env := range [][]string{{"SSL_CERT_FILE=" + path}, {"SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=" + filepath.Dir(path)}} {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStrangersRootInThisProcess$", "-test.v")
			cmd.Env = append(append(os.Environ(), rootsOf+"="+who, "POSTERN_TEST_ROOT="+path), env...)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("the stranger is "+want)) {
				t.Errorf("%s with %s: want %s, got %v\n%s", who, env, want, err, out)
			}
		}
	}
}

func TestStrangersRootInThisProcess(t *testing.T) {
	who := os.Getenv(rootsOf)
	if who == "" {
		return // the child's side of the test above
	}
	if who == "postern" {
		var out bytes.Buffer
		if code := run(context.Background(), []string{"version"}, strings.NewReader(""), &out, &out); code != 0 {
			t.Fatal(out.String())
		}
	}
	raw, err := os.ReadFile(os.Getenv("POSTERN_TEST_ROOT"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Logf("the stranger is unknown: %v", err)
		return
	}
	t.Log("the stranger is believed")
}
