package control

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"

	"postern/platform"
)

// TestNamelessCallerIsToldItsOwnUID: the agent sees none of an account that its
// user namespace does not know, and no group would let it in.
func TestNamelessCallerIsToldItsOwnUID(t *testing.T) {
	w := serve(t)
	nobody := w.as(platform.Unknown)
	for want, err := range map[string]error{
		fmt.Sprintf("uid %d may not administer the agent", os.Getuid()):             nobody.Run(t.Context(), "renew", struct{}{}, nil),
		fmt.Sprintf("uid %d is not a member of the group %s", os.Getuid(), "himds"): post(t, nobody),
	} {
		if f := AsFault(err); f == nil || f.Message != want || f.Fix != AgainWithSudo || f.Exit != ExitPermission {
			t.Errorf("got %+v, want %q", f, want)
		}
	}
}

func post(t *testing.T, c *Client) error {
	t.Helper()
	_, err := c.Token(t.Context(), TokenRequest{Resource: "x"})
	return err
}

// TestConnectionThatIsTurnedAwayIsWordedForAPerson holds all that one account
// may have.
func TestConnectionThatIsTurnedAwayIsWordedForAPerson(t *testing.T) {
	w := serve(t)
	for range maxConnectionsPerPeer {
		conn, err := w.host.DialAs(member)(t.Context(), "unix", w.path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	_, err := w.as(member).Status(t.Context())
	f := AsFault(err)
	if f == nil || f.ID != "control-closed" || f.Fix == "" || f.Exit != ExitFailed || !strings.Contains(f.Message, "has 8 of this account already") {
		t.Errorf("got %+v", f)
	}
	if _, err := w.as(root).Status(t.Context()); err != nil {
		t.Errorf("another account: %v", err)
	}
}

func TestSocketThatMayNotBeOpenedIsWordedForAPerson(t *testing.T) {
	c := &Client{Path: "/run/postern/control.sock", Dial: func(context.Context, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: fs.ErrPermission}
	}}
	_, err := c.Status(t.Context())
	f := AsFault(err)
	if f.Message != "this account may not open the control socket /run/postern/control.sock" || f.Fix != AgainWithSudo || f.Exit != ExitPermission {
		t.Errorf("got %+v", f)
	}
}
