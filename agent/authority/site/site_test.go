package site

import (
	"context"
	"net/http"
	"testing"
)

func TestAClaimIsEnoughToConnectAndEarnAToken(t *testing.T) {
	w := newWorld(t)
	w.addVault()
	d := w.connect("gw-0042")
	a := w.tokenFor(d, vault)
	if a.status != http.StatusOK {
		t.Fatalf("token: %d %s", a.status, a.body)
	}
	m, err := w.a.MachineByName(context.Background(), "GW-0042")
	w.must(err)
	if m.ClientID != d.clientID() || len(m.Certificates) != 1 {
		t.Fatalf("got %+v", m)
	}
	n := w.rekey(d)
	w.restart()
	if a := w.tokenFor(n, vault); a.status != http.StatusOK {
		t.Fatalf("token: %d %s", a.status, a.body)
	}
}
