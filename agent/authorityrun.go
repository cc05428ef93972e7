package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform"
)

// authorityAddress says where the site authority is reached.
type authorityAddress struct {
	listen     string
	everywhere bool // listen may be a wildcard
	url        string
	names      []string
	life       time.Duration // of the certificates; zero for the usual one
}

func (c *cli) authorityRunVerb(f *authorityFlags) *verb.Command {
	var a authorityAddress
	long, example := manual("Be the site authority until SIGTERM. It makes its own root at the first start.",
		[]string{"sudo postern authority run", "sudo postern authority run --listen 192.0.2.10:8443 --url https://ca.site.local:8443"}, "0 stopped; 1 the address is taken; 2 usage; 7 permission; 11 its database is damaged")
	cmd := &verb.Command{
		Use: "run", Short: "Be the site authority", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			l, err := a.listener()
			if err != nil {
				return err
			}
			return c.runAuthority(cmd.Context(), f, a, l)
		},
	}
	cmd.Flags().StringVar(&a.listen, "listen", "127.0.0.1:8443", "`address` to answer on, one of this machine's")
	cmd.Flags().BoolVar(&a.everywhere, "every-interface", false, "let --listen be 0.0.0.0 or [::], which every network reaches")
	cmd.Flags().StringVar(&a.url, "url", "", "`URL` under which devices reach it (default https:// and the address)")
	verb.ListVar(cmd.Flags(), &a.names, "name", "further `names` in its server certificate")
	cmd.Flags().DurationVar(&a.life, "certificate-life", 0, "how long certificates live, 1m to 2160h; a device that is cut off lasts no longer (default 2160h, 90 days)")
	return cmd
}

// listener is what --listen asks for. It is one literal address; a wildcard is
// never an accident, because the networks that come later would reach it too.
func (a *authorityAddress) listener() (platform.Listener, error) {
	usage := func(fix, format string, args ...any) (platform.Listener, error) {
		return platform.Listener{}, control.NewFault(control.ExitUsage, "listen", fix, "authority: "+format, args...)
	}
	l := platform.Listener{Name: "authority", Network: network(a.listen), Address: a.listen, Everywhere: a.everywhere}
	host, port, err := net.SplitHostPort(a.listen)
	if err == nil && host == "" { // ":8443" is every interface, not written out
		return usage("sudo postern authority run --listen 127.0.0.1:"+port, "--listen %s names no address", a.listen)
	}
	at, err := netip.ParseAddrPort(a.listen)
	if err != nil {
		return usage("sudo postern authority run --listen 127.0.0.1:8443", "--listen %q is not an address with a port", a.listen)
	}
	if at.Addr().IsUnspecified() {
		again := fmt.Sprintf("sudo postern authority run --every-interface --listen %s --url https://HOST:%d", a.listen, at.Port())
		switch {
		case !a.everywhere:
			return usage("ip -brief address   # then: sudo postern authority run --listen ADDRESS:"+port, "--listen %s is every interface of this machine; name one address, or add --every-interface if that is meant", a.listen)
		case a.url == "":
			return usage(again, "--listen %s is no address that devices can call: --url is missing", a.listen)
		}
	}
	if a.url == "" {
		a.url = "https://" + a.listen
	}
	return l, nil
}

func (c *cli) runAuthority(ctx context.Context, f *authorityFlags, a authorityAddress, at platform.Listener) error {
	o, err := c.openAuthority(ctx, f, a)
	if err != nil {
		return err
	}
	defer func() { _ = o.authority.Close() }()
	l, err := o.host.Listen(ctx, at)
	if err != nil {
		return authorityListenFault(err)
	}
	run := filepath.Join(o.dir, "run")
	if err := o.host.Secure(run, platform.Private); err != nil {
		return errors.Join(accessFault("runtime-dir", err), l.Close())
	}
	admin, err := o.host.Listen(ctx, platform.Listener{Name: "authority-admin", Network: "unix", Address: adminSocket(o.dir), Access: platform.Private})
	if err != nil {
		return errors.Join(listenFault("", err), l.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return o.authority.Serve(ctx, l) })
	group.Go(func() error { return o.authority.ServeAdmin(ctx, admin) })
	o.host.Notify("READY=1")
	info, err := o.authority.Info(ctx)
	if err != nil {
		return err
	}
	c.say("site authority on %s, root %s", info.URL, info.RootSHA256)
	c.next("sudo postern authority claim MACHINE")
	return group.Wait()
}

func authorityListenFault(err error) error {
	if errors.Is(err, platform.ErrPortTaken) {
		return control.NewFault(control.ExitFailed, "port-owner", "sudo postern authority run --listen 127.0.0.1:8444", "authority: %w", err)
	}
	return control.NewFault(control.ExitFailed, "listen", "ip -brief address   # the addresses of this machine", "authority: %w", err)
}
