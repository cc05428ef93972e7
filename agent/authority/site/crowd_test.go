package site

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"postern/agent/authority/jws"
)

// crowd runs f n times at once.
func crowd(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func TestOfManyAtOnceOneUsesTheToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw")
	claim := w.claim(ClaimRequest{Machine: "other"})
	var made atomic.Int32
	crowd(16, func(int) {
		if a := w.post(nil, "/sign", signBody(t, newKey(t), claim)); a.status == http.StatusCreated {
			made.Add(1)
		} else if a.status != http.StatusUnauthorized {
			t.Errorf("sign: %d %s", a.status, a.body)
		}
	})
	form := assertionForm(d, w.assertion(d, jws.ES256, nil), vault)
	var earned atomic.Int32
	crowd(16, func(int) {
		if a := w.token(nil, form); a.status == http.StatusOK {
			earned.Add(1)
		} else if a.status != http.StatusBadRequest {
			t.Errorf("token: %d %s", a.status, a.body)
		}
	})
	var connected atomic.Int32
	claims := make([]string, 8)
	for i := range claims {
		claims[i] = w.claim(ClaimRequest{Machine: "third"})
	}
	crowd(len(claims), func(i int) {
		if a := w.post(nil, "/sign", signBody(t, newKey(t), claims[i])); a.status == http.StatusCreated {
			connected.Add(1)
		} else if a.status != http.StatusForbidden {
			t.Errorf("sign: %d %s", a.status, a.body)
		}
	})
	if made.Load() != 1 || earned.Load() != 1 || connected.Load() != 1 {
		t.Errorf("%d certificates, %d tokens, %d machines", made.Load(), earned.Load(), connected.Load())
	}
}

func TestACrowdOfDevicesAndOperators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addVault()
	ctx := context.Background()
	devices := make([]*device, 6)
	for i := range devices {
		devices[i] = w.connect(fmt.Sprintf("gw-%d", i))
	}
	crowd(12, func(n int) {
		i := n % len(devices)
		d, name := devices[i], fmt.Sprintf("gw-%d", i)
		if n >= len(devices) { // operators
			id := fmt.Sprintf("id-%d", i)
			for range 3 {
				if _, err := w.a.CreateIdentity(ctx, id, ""); err != nil {
					t.Error(err)
				}
				if err := w.a.Assign(ctx, id, name); err != nil {
					t.Error(err)
				}
				if _, err := w.a.Machines(ctx); err != nil {
					t.Error(err)
				}
				if err := w.a.DeleteIdentity(ctx, id, true); err != nil {
					t.Error(err)
				}
			}
			return
		}
		for range 3 {
			for _, identity := range w.list(d).Identities {
				if identity.Enroll != nil {
					w.post(nil, "/sign", signBody(t, newKey(t), identity.Enroll.OTT)) // 201, or 401 if it was just taken away
				}
			}
			if a := w.tokenFor(d, vault); a.status != http.StatusOK {
				t.Errorf("token: %d %s", a.status, a.body)
			}
			d = w.rekey(d)
		}
	})
	if err := w.a.checkLedger(); err != nil {
		t.Error(err)
	}
}
