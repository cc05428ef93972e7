package authoritytest

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"testing"

	"postern/agent/authority"
	"postern/agent/authority/site"
	"postern/store"
)

// Site is the site authority on a World's network: the double of every
// authority, with its own ledger in a directory of the test.
type Site struct {
	*site.Authority
	World *World
	URL   string
}

// StartSite opens a site authority and serves it as https://authority.test with
// one resource registered, Resource. It ends with the world.
func StartSite(t *testing.T, w *World) *Site {
	t.Helper()
	a, err := site.Open(t.Context(), t.TempDir(), site.Options{URL: "https://" + Host, Now: nil})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	l := w.Net.Listen(Host + ":443")
	go func() { served <- a.Serve(ctx, l) }()
	w.OnStop(func() {
		cancel()
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := a.AddResource(t.Context(), site.Resource{Identifier: Resource}); err != nil {
		t.Fatal(err)
	}
	return &Site{Authority: a, World: w, URL: "https://" + Host}
}

// Roots is the site's root alone.
func (s *Site) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.RootPEM()))
	return pool
}

// Clients believe the site's root alone. They are closed before the site is.
func (s *Site) Clients() *authority.Clients {
	config := s.World.Config()
	config.Roots = s.Roots()
	clients := authority.NewClients(config)
	s.World.stops = append([]func(){clients.CloseIdleConnections}, s.World.stops...)
	return clients
}

// Claim mints a claim for a machine, new or, with again, one that exists.
func (s *Site) Claim(t *testing.T, machine string, again bool) store.Secret {
	t.Helper()
	claim, err := s.CreateClaim(t.Context(), site.ClaimRequest{Machine: machine, Reonboard: again})
	if err != nil {
		t.Fatal(err)
	}
	return claim.Token
}
