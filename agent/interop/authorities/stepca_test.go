//go:build interop

package authorities

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/authority/jws"
	"postern/agent/authority/stepca"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/store"
)

// stepCA is a real step-ca on loopback.
type stepCA struct {
	url     string
	pki     *authoritytest.PKI // root and intermediate, made by us
	factory *authoritytest.PKI // of birth certificates
	key     *ecdsa.PrivateKey  // of the provisioners
	clock   *lifecycle.Clock
	clients *authority.Clients
	driver  *stepca.Authority
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// startStepCA runs one with three provisioners: onboard (90 days), short
// (certificates end 3 s after they were signed) and factory (X5C).
func startStepCA(t *testing.T) *stepCA {
	t.Helper()
	binary := stepCABinary(t)
	now := time.Now()
	ca := &stepCA{pki: authoritytest.NewPKI(t, now), factory: authoritytest.NewPKI(t, now), key: authoritytest.NewKey(t)}
	port := freePort(t)
	ca.url = "https://localhost:" + port
	config := write(t, filepath.Join(t.TempDir(), "ca.json"), ca.config(t, t.TempDir(), port))

	ca.clock = authoritytest.NewTime().Clock()
	ca.clients = authority.NewClients(authority.Config{Clock: ca.clock, Roots: ca.pki.Pool()})
	t.Cleanup(ca.clients.CloseIdleConnections)
	var err error
	if ca.driver, err = stepca.New(stepca.Config{URL: ca.url, Clients: ca.clients, Clock: ca.clock}); err != nil {
		t.Fatal(err)
	}
	start(t, nil, []string{superviseVariable + "=1"}, nil, os.Args[0], binary, config)
	eventually(t, "step-ca", ca.driver.Heartbeat)
	return ca
}

func (ca *stepCA) config(t *testing.T, dir, port string) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(ca.pki.MiddleKey())
	if err != nil {
		t.Fatal(err)
	}
	life := func(d string) map[string]any {
		return map[string]any{"minTLSCertDuration": "1s", "defaultTLSCertDuration": d, "maxTLSCertDuration": "2160h"}
	}
	out, err := json.Marshal(map[string]any{
		"root":    write(t, filepath.Join(dir, "root.crt"), pemOf("CERTIFICATE", ca.pki.Root.Raw)),
		"crt":     write(t, filepath.Join(dir, "middle.crt"), pemOf("CERTIFICATE", ca.pki.Middle.Raw)),
		"key":     write(t, filepath.Join(dir, "middle.key"), pemOf("PRIVATE KEY", key)),
		"address": "127.0.0.1:" + port, "dnsNames": []string{"localhost"}, "logger": map[string]any{"format": "json"},
		"db": map[string]any{"type": "bbolt", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []any{
			map[string]any{"type": "JWK", "name": "onboard", "key": jwkOf(t, "", &ca.key.PublicKey), "claims": life("2160h")},
			map[string]any{"type": "JWK", "name": "short", "key": jwkOf(t, "", &ca.key.PublicKey), "claims": life("3s")},
			map[string]any{"type": "X5C", "name": "factory", "roots": base64.StdEncoding.EncodeToString(pemOf("CERTIFICATE", ca.factory.Root.Raw)), "claims": life("2160h")},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// claim is a one-time token of a JWK provisioner.
func (ca *stepCA) claim(t *testing.T, provisioner, subject string) store.Secret {
	t.Helper()
	return ca.token(t, ca.key, map[string]any{"kid": "provisioner"}, provisioner, "", subject)
}

func (ca *stepCA) token(t *testing.T, key crypto.Signer, header map[string]any, provisioner, fragment, subject string) store.Secret {
	t.Helper()
	now := time.Now()
	token, err := jws.Sign(key, jws.ES256, header, map[string]any{
		"iss": provisioner, "aud": ca.url + "/1.0/sign" + fragment, "sub": subject, "sans": []string{subject, "urn:device:" + subject},
		"jti": rand.Text(), "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "sha": ca.pki.RootSHA256(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return store.NewSecret(token)
}

// enroll makes a device at a provisioner.
func (ca *stepCA) enroll(t *testing.T, provisioner, name string) *credential.Credential {
	t.Helper()
	key := authoritytest.NewKey(t)
	chain, err := ca.driver.Enroll(t.Context(), key, ca.claim(t, provisioner, name))
	if err != nil {
		t.Fatal(err)
	}
	return &credential.Credential{Identity: credential.Identity{ClientID: name}, Signer: key, Chain: chain, Made: time.Now()}
}

func TestStepCAKeepsThePromises(t *testing.T) {
	ca := startStepCA(t)
	foreign := ca.token(t, authoritytest.NewKey(t), map[string]any{"kid": "provisioner"}, "onboard", "", "device-x")
	devices := 0
	for name, promise := range authoritytest.AuthorityPromises() {
		t.Run(name, func(t *testing.T) {
			promise(t, authoritytest.AuthorityCase{
				Authority: ca.driver, Roots: ca.pki.Pool(), Foreign: foreign, RealTime: true,
				Claim: func(t *testing.T) store.Secret {
					devices++
					return ca.claim(t, "onboard", fmt.Sprintf("device-%d", devices))
				},
			})
		})
	}
}

func TestStepCAGivesItsRootByFingerprint(t *testing.T) {
	ca := startStepCA(t)
	claim, err := stepca.ParseClaim(ca.claim(t, "onboard", "device-1"))
	if err != nil || claim.URL != ca.url {
		t.Fatalf("%+v, %v", claim, err)
	}
	unpinned := authority.Config{Clock: authoritytest.NewTime().Clock()}
	root, err := stepca.Root(t.Context(), unpinned, claim.URL, claim.RootSHA256)
	if err != nil || root != ca.pki.RootPEM() {
		t.Errorf("%v\n%s", err, root)
	}
	_, err = stepca.Root(t.Context(), unpinned, claim.URL, ca.factory.RootSHA256())
	authoritytest.WantError(t, err, lifecycle.ClassDenied, "no root with this fingerprint")
}

// A factory's birth certificate signs the claim: onboarding without a person.
func TestStepCATakesABirthCertificate(t *testing.T) {
	ca := startStepCA(t)
	birth := ca.factory.Credential("SN-0001")
	var chain []string
	for _, c := range birth.Chain {
		chain = append(chain, base64.StdEncoding.EncodeToString(c.Raw))
	}
	claim := ca.token(t, birth.Signer, map[string]any{"x5c": chain}, "factory", "#x5c/factory", "SN-0001")
	got, err := ca.driver.Enroll(t.Context(), authoritytest.NewKey(t), claim)
	if err != nil || got[0].Subject.CommonName != "SN-0001" {
		t.Errorf("%v", err)
	}
}

// With rotate_key = false the key stays.
func TestStepCARenewsPlainly(t *testing.T) {
	ca := startStepCA(t)
	current := ca.enroll(t, "onboard", "device-1")
	chain, err := ca.driver.Renew(t.Context(), current, current.Signer)
	if err != nil || chain[0].SerialNumber.Cmp(current.Leaf().SerialNumber) == 0 {
		t.Errorf("%v", err)
	}
}

// step-ca ends the connection by an alert. The clocks agree, so that the
// certificate is over; with ours half an hour ahead it may be the clock.
func TestStepCASaysExpiredByAnAlert(t *testing.T) {
	ca := startStepCA(t)
	current := ca.enroll(t, "short", "device-1")
	eventually(t, "the certificate ends", untilOver(current))
	_, err := ca.driver.Renew(t.Context(), current, authoritytest.NewKey(t))
	authoritytest.WantError(t, err, lifecycle.ClassRejected, "expired certificate")
	if err := ca.driver.Retire(t.Context(), current); err != nil {
		t.Errorf("what is over is retired: %v", err)
	}
	ahead := authoritytest.NewTime()
	ahead.Step(30 * time.Minute)
	clock := ahead.Clock()
	clients := authority.NewClients(authority.Config{Clock: clock, Roots: ca.pki.Pool()})
	defer clients.CloseIdleConnections()
	driver, err := stepca.New(stepca.Config{URL: ca.url, Clients: clients, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	_, err = driver.Renew(t.Context(), current, authoritytest.NewKey(t))
	authoritytest.WantError(t, err, lifecycle.ClassClock, "expired certificate")
}

// untilOver waits for the second after a certificate's last one.
func untilOver(c *credential.Credential) func(context.Context) error {
	return func(context.Context) error {
		if time.Now().Before(c.Leaf().NotAfter.Add(time.Second)) {
			return errors.New("still valid")
		}
		return nil
	}
}
