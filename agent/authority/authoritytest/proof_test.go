package authoritytest

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/agent/authority"
	"postern/agent/credential"
	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/store"
)

// A suite that cannot fail proves nothing. Each breakage below is a driver with
// one fault; it is run in a child process, whose test must fail at the promise.
var breakages = map[string]struct {
	promise string // that must break
	run     func(t *testing.T)
}{
	"issuer that keeps tokens":            {"each_call_makes_a_new_token", func(t *testing.T) { Issuer(t, issuerCase(&faulty{kept: true})) }},
	"issuer that serves strangers":        {"another's_key_gets_nothing", func(t *testing.T) { Issuer(t, issuerCase(&faulty{trusting: true})) }},
	"issuer that makes errors of its own": {"an_unknown_resource_is_told_apart", func(t *testing.T) { Issuer(t, issuerCase(&faulty{plain: true})) }},
	"issuer that ignores its caller":      {"a_caller_that_hangs_up_gets_its_error", func(t *testing.T) { Issuer(t, issuerCase(&faulty{deaf: true})) }},
	"issuer whose token is for ever":      {"a_credential_becomes_a_token", func(t *testing.T) { Issuer(t, issuerCase(&faulty{life: 26 * time.Hour})) }},

	"authority that certifies its own key":   {"a_claim_becomes_a_certificate_over_our_key", func(t *testing.T) { Authority(t, authorityCase(&lax{foreignKey: true})) }},
	"authority that takes a claim twice":     {"a_claim_works_once", func(t *testing.T) { Authority(t, authorityCase(&lax{reuse: true})) }},
	"authority that renews what is retired":  {"a_retired_certificate_is_rejected", func(t *testing.T) { Authority(t, authorityCase(&lax{forgetful: true})) }},
	"authority that forgets whose key it is": {"a_renewal_is_over_the_pending_key", func(t *testing.T) { Authority(t, authorityCase(&lax{oldKey: true})) }},

	"driver that sends to anybody": {"foreign_CA", func(t *testing.T) {
		BadServers(t, http.NotFoundHandler(), func(ctx context.Context, trial Trial) error {
			return post(ctx, trial, func(c *authority.Config, p *x509.Certificate) { c.Roots = nil })
		})
	}},
	"table whose good server is refused": {"good", func(t *testing.T) {
		BadServers(t, http.NotFoundHandler(), func(context.Context, Trial) error {
			return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "x"}
		})
	}},
	"driver that takes every answer": {"expires_in_negative", func(t *testing.T) {
		TokenAnswers(t, func(*testing.T, *World, string) token.Issuer { return &faulty{trusting: true} })
	}},
}

const breakageVariable = "POSTERN_TEST_BREAKAGE"

func TestSuitesFailOnBrokenDrivers(t *testing.T) {
	for name, b := range breakages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBroken$", "-test.v")
			cmd.Env = append(os.Environ(), breakageVariable+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestBroken/"+b.promise) {
				t.Errorf("the suite passes (%v), or fails elsewhere than at %s:\n%s", err, b.promise, out)
			}
		})
	}
}

// TestBroken is the child's side.
func TestBroken(t *testing.T) {
	if b, ok := breakages[os.Getenv(breakageVariable)]; ok {
		b.run(t)
	}
}

func post(ctx context.Context, trial Trial, change func(*authority.Config, *x509.Certificate)) error {
	change(&trial.Config, trial.Credential.Leaf())
	client := authority.NewClient(trial.Config)
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+Host, strings.NewReader("x"))
	if err != nil {
		return err
	}
	if _, err := authority.Do(client, req, "test", 10); err != nil {
		return errors.New(err.Error()) // its class is lost
	}
	return nil
}

// faulty is an issuer with one fault.
type faulty struct {
	kept, trusting, plain, deaf bool
	life                        time.Duration

	owner crypto.PublicKey
	made  atomic.Int64
}

func issuerCase(f *faulty) func(t *testing.T, w *World) IssuerCase {
	return func(_ *testing.T, w *World) IssuerCase {
		who := w.PKI.Credential("c")
		f.owner = who.Signer.Public()
		return IssuerCase{Issuer: f, Credential: who, Resource: Resource, Unknown: "https://unknown.test"}
	}
}

func (f *faulty) Issue(ctx context.Context, with *credential.Credential, resource string) (token.Issued, error) {
	refuse := func(class lifecycle.Class, err error) (token.Issued, error) {
		return token.Issued{}, &lifecycle.Error{Class: class, Op: "faulty", Err: err}
	}
	switch known := with.Leaf().PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(f.owner) &&
		with.Signer.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(f.owner); {
	case ctx.Err() != nil && !f.deaf:
		return refuse(lifecycle.ClassTransient, ctx.Err())
	case resource != Resource && f.plain:
		return token.Issued{}, errors.New("no")
	case resource != Resource:
		return refuse(lifecycle.ClassBadResource, errors.New("no"))
	case !known && !f.trusting:
		return refuse(lifecycle.ClassRejected, errors.New("no"))
	}
	if !f.kept {
		f.made.Add(1)
	}
	life := f.life
	if life == 0 {
		life = time.Hour
	}
	return token.Issued{Value: store.NewSecret(fmt.Sprint("token", f.made.Load())), ExpiresIn: life}, nil
}

// lax is a certificate authority with one fault.
type lax struct {
	foreignKey, reuse, forgetful, oldKey bool

	t       *testing.T
	pki     *PKI
	used    map[string]bool
	revoked map[string]bool
}

func authorityCase(l *lax) func(t *testing.T, w *World) AuthorityCase {
	return func(t *testing.T, w *World) AuthorityCase {
		l.t, l.pki, l.used, l.revoked = t, w.PKI, map[string]bool{"foreign": true}, map[string]bool{}
		n := 0
		return AuthorityCase{Authority: l, Roots: w.PKI.Pool(), Foreign: store.NewSecret("foreign"), Claim: func(*testing.T) store.Secret {
			n++
			return store.NewSecret(fmt.Sprint("claim", n))
		}}
	}
}

func (l *lax) chain(pub crypto.PublicKey) []*x509.Certificate {
	if l.foreignKey {
		pub = &NewKey(l.t).PublicKey
	}
	now := time.Now()
	return l.pki.Leaf(pub, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = now.Add(-time.Minute), now.Add(90*24*time.Hour)
	}, "c", "urn:device:c")
}

func (l *lax) Enroll(ctx context.Context, signer crypto.Signer, claim store.Secret) ([]*x509.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "lax", Err: err}
	}
	if c := claim.Reveal(); l.used[c] && !l.reuse || !strings.HasPrefix(c, "claim") {
		return nil, &lifecycle.Error{Class: lifecycle.ClassDenied, Answered: true, Op: "lax", Err: errors.New("no")}
	}
	l.used[claim.Reveal()] = true
	return l.chain(signer.Public()), nil
}

func (l *lax) Renew(ctx context.Context, current *credential.Credential, pending crypto.Signer) ([]*x509.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "lax", Err: err}
	}
	if l.revoked[current.Leaf().SerialNumber.String()] || current.Leaf().CheckSignatureFrom(l.pki.Middle) != nil {
		return nil, &lifecycle.Error{Class: lifecycle.ClassRejected, Answered: true, Op: "lax", Err: errors.New("no")}
	}
	if l.oldKey {
		return l.chain(current.Signer.Public()), nil
	}
	return l.chain(pending.Public()), nil
}

func (l *lax) Retire(ctx context.Context, old *credential.Credential) error {
	if err := ctx.Err(); err != nil {
		return &lifecycle.Error{Class: lifecycle.ClassTransient, Op: "lax", Err: err}
	}
	l.revoked[old.Leaf().SerialNumber.String()] = !l.forgetful
	return nil
}

func (l *lax) Heartbeat(context.Context) error { return nil }

// The fakes themselves are right but for their faults.
func TestSuitesPassOnDriversWithoutFault(t *testing.T) {
	t.Run("issuer", func(t *testing.T) { Issuer(t, issuerCase(&faulty{})) })
	t.Run("authority", func(t *testing.T) { Authority(t, authorityCase(&lax{})) })
}
