package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/agent/config"
	"postern/agent/control"
	"postern/agent/endpoint"
	"postern/agent/lifecycle"
	"postern/platform"
)

const tick = lifecycle.Tick

// serve opens the listeners, says that it is ready, and runs until ctx ends.
// ready is called once, after the sockets answer.
func (g *graph) serve(ctx context.Context, ready func()) (err error) {
	defer func() { err = errors.Join(err, g.close()) }()
	signals := g.asked
	if signals == nil {
		var unheard func()
		signals, unheard = hearSignals() // before anything answers
		defer unheard()
	}
	dirs := g.host.Dirs()
	if err := g.host.Secure(dirs.Runtime, platform.Public); err != nil {
		return accessFault("runtime-dir", err)
	}
	if err := g.wireEndpoint(); err != nil {
		return err
	}
	opened, err := g.listen(ctx)
	if err != nil {
		return err
	}
	g.writeEnv() // before the control socket answers: who waits for that reads it next
	g.confine()
	g.checkAccess() // before anything is written anew
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range opened.endpoint {
		group.Go(func() error { return g.endpoint.Serve(ctx, l) })
	}
	group.Go(func() error {
		return control.NewServer(g, g.host, g.cfg.Group, g.log).Serve(ctx, opened.control)
	})
	group.Go(func() error { return g.device.Run(ctx) })
	group.Go(func() error { return g.broker.Run(ctx) })
	group.Go(func() error { return g.audit.Run(ctx) })
	if g.keeper != nil {
		group.Go(func() error { return g.keeper.Run(ctx) })
	}
	group.Go(func() error { return g.tend(ctx, signals) })
	g.host.Notify("READY=1")
	g.log.Info("ready", "event", "ready", "state", g.Status().State, "arc", strings.Join(g.serving.Arc, " "), "imds", strings.Join(g.serving.IMDS, " "))
	if ready != nil {
		ready()
	}
	err = group.Wait()
	g.stageContact() // the audit's last commit, in close, takes it along
	g.host.Notify("STOPPING=1")
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// listeners are the sockets of one agent.
type listeners struct {
	endpoint []endpoint.Listener
	control  net.Listener
}

// listen opens every socket, or none: half an endpoint would send clients to a
// squatter on the other half.
func (g *graph) listen(ctx context.Context) (opened listeners, err error) {
	defer func() {
		if err != nil {
			opened.close()
		}
	}()
	if g.cfg.Arc.Enabled {
		if err := g.open(ctx, &opened, "arc", g.cfg.Arc.Listen, &g.serving.Arc); err != nil {
			return opened, err
		}
	}
	if g.cfg.IMDS.Enabled {
		if err := g.open(ctx, &opened, "imds", g.cfg.IMDS.Listen, &g.serving.IMDS); err != nil {
			return opened, err
		}
	}
	for _, w := range g.cfg.Workloads {
		if err := g.openWorkload(ctx, &opened, w); err != nil {
			return opened, err
		}
	}
	opened.control, err = g.host.Listen(ctx, platform.Listener{
		Name: "control", Network: "unix", Address: controlAddress(g.host.Dirs().Runtime),
	})
	if err != nil {
		return opened, listenFault("", err)
	}
	return opened, nil
}

func (o *listeners) close() {
	for _, l := range o.endpoint {
		_ = l.Close()
	}
	if o.control != nil {
		_ = o.control.Close()
	}
}

func (g *graph) open(ctx context.Context, opened *listeners, name string, addresses []string, serving *[]string) error {
	for _, address := range addresses {
		l, err := g.host.Listen(ctx, platform.Listener{Name: name, Network: network(address), Address: address, Loopback: true})
		if errors.Is(err, platform.ErrNoFamily) && len(addresses) > 1 {
			g.log.Warn("address family is missing on this machine", "address", address, "reason", err)
			continue
		}
		if err != nil {
			return listenFault(address, err)
		}
		opened.endpoint = append(opened.endpoint, endpoint.Listener{Listener: l, Flavour: endpoint.Flavour(name), Hosts: g.hosts(name)})
		*serving = append(*serving, l.Addr().String())
	}
	if len(*serving) == 0 {
		return control.NewFault(control.ExitFailed, "no-address", "ip addr show lo", "none of the addresses %s exists on this machine", strings.Join(addresses, ", "))
	}
	return nil
}

func (g *graph) openWorkload(ctx context.Context, opened *listeners, w config.Workload) error {
	host, _, err := net.SplitHostPort(w.Listen)
	if err != nil {
		return err
	}
	ip := net.ParseIP(host)
	want := platform.Listener{Name: "workload-" + w.Name, Network: network(w.Listen), Address: w.Listen, Loopback: ip != nil && ip.IsLoopback()}
	l, err := g.host.Listen(ctx, want)
	if errors.Is(err, platform.ErrNoAddress) { // a container's bridge may come later; nobody else shall wait for it
		g.log.Warn("workload is served once its address is there", "workload", w.Name, "address", w.Listen, "reason", err, "fix", "ip -br address")
		want.Early = true
		l, err = g.host.Listen(ctx, want)
	}
	if err != nil {
		return listenFault(w.Listen, err)
	}
	opened.endpoint = append(opened.endpoint, endpoint.Listener{Listener: l, Flavour: endpoint.AppService, Hosts: w.Hosts, Workload: w.Name})
	g.serving.Workloads = append(g.serving.Workloads, w.Name+" "+l.Addr().String())
	return nil
}

func network(address string) string {
	if strings.HasPrefix(address, "[") {
		return "tcp6"
	}
	return "tcp4"
}

func listenFault(address string, err error) error {
	host, _, _ := net.SplitHostPort(address)
	fix := "ip -br address   # start what makes the address, such as a container's bridge, or listen on another"
	switch {
	case errors.Is(err, platform.ErrPortTaken):
		return control.NewFault(control.ExitFailed, "port-owner", "sudo systemctl stop postern   # if that is postern, else stop that program", "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return control.NewFault(control.ExitPermission, "listen", control.AgainWithSudo, "%w", err)
	case !errors.Is(err, platform.ErrNoAddress):
		return err
	case host == "169.254.169.254":
		fix = "sudo ip route add local 169.254.169.254/32 dev lo   # where systemd's postern-imds.socket does not"
	}
	return control.NewFault(control.ExitFailed, "no-address", fix, "%w", err)
}

// confine gives up what is not needed once everything is open.
func (g *graph) confine() {
	read := []string{g.cfg.Authority.CAFile, g.cfg.Token.Roots, g.cfg.ProxyCredentialsFile, g.cfg.Path()}
	level, err := g.host.Confine(platform.Confinement{Read: nonEmpty(read)})
	if err != nil {
		g.log.Info("no sandbox beyond the init system's", "reason", err)
	}
	g.sandbox = level
}

func nonEmpty(list []string) []string {
	var kept []string
	for _, s := range list {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}

// writeEnv leaves the two variables for EnvironmentFile= and --env-file.
func (g *graph) writeEnv() {
	if len(g.serving.Arc) == 0 {
		return
	}
	path := filepath.Join(g.host.Dirs().Runtime, "env")
	if err := g.host.WriteFile(path, []byte(arcEnv(g.cfg.Arc.Listen[0]).dotenv()), platform.Public); err != nil {
		g.log.Warn("env file is not written", "path", path, "reason", err)
	}
}

// tend is the slow loop: the watchdog, the words for the init system, the
// files under us, and the signals that ask for something.
func (g *graph) tend(ctx context.Context, signals <-chan os.Signal) error {
	every := tick
	if w := g.host.Watchdog(); w > 0 {
		every = min(every, w/2)
	}
	timer := time.NewTimer(every)
	defer timer.Stop()
	var said string
	for {
		g.notice()
		if words := g.words(); words != said {
			g.host.Notify("STATUS=" + words)
			said = words
		}
		timer.Reset(lifecycle.UntilTick(g.clock.Now().Boot, every))
		select {
		case <-ctx.Done():
			return nil
		case asked := <-signals:
			g.heed(ctx, asked)
		case <-timer.C:
			g.keepContact(ctx)
			if g.checkFiles(ctx) {
				g.host.Notify("WATCHDOG=1")
			}
		}
	}
}

// words is the status in one line, for the init system.
func (g *graph) words() string {
	st := g.Status()
	if st.Until.IsZero() {
		return st.Word()
	}
	return fmt.Sprintf("%s, until %s", st.Word(), st.Until.Format(time.DateOnly))
}

// checkFiles looks whether the cache is still what was opened, and whether
// others could reach the keys. The identity file is checked by the device's
// own loop; what it found is only said here.
func (g *graph) checkFiles(ctx context.Context) bool {
	g.checkAccess()
	if err := g.file.Damaged(); err != nil {
		g.log.Error("identity store", "event", "store-damaged", "reason", err)
	}
	if err := g.cache.Check(ctx); err != nil && ctx.Err() == nil {
		g.log.Warn("token cache", "event", "store-recovered", "reason", err)
	}
	return true
}
