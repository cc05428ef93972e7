package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
	"postern/platform/linux/install"
)

// installFlags are the flags of install.
type installFlags struct {
	root, init, binary, to      string
	discovery, tokens, services string
	uid, gid                    int
	dryRun                      bool
}

func (c *cli) installVerb() *verb.Command {
	var f installFlags
	long, example := manual("Put the agent on this system, or with --root into the tree of an image: account, directories, binary, the files of the init system, "+
		"and what makes clients find it. It refuses what somebody else put there, before it changes anything; repeated, it completes or upgrades.",
		[]string{"sudo ./postern install", "sudo ./postern install --root /mnt/image --init busybox --dry-run"},
		"0 installed; 1 something is in the way; 2 usage; 7 not root")
	cmd := &verb.Command{
		Use: "install", Short: "Put the agent on this system", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error { return c.install(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "/", "`directory` of another system's tree")
	flags.StringVar(&f.init, "init", "", "`name` of the init system: "+strings.Join(install.Inits(), ", ")+" (default: found)")
	flags.StringVar(&f.binary, "binary", "", "`file` to install as the program (default: this one)")
	flags.StringVar(&f.to, "to", "", "`path` of the installed program (default /usr/local/bin/postern, with --root /usr/bin/postern)")
	flags.StringVar(&f.discovery, "discovery", "on", "on, or off: clients do not find the agent until postern discovery on")
	flags.StringVar(&f.tokens, "tokens", "", "link, or mount: a tmpfs of its own, where containers mount the directory above, systemd (default: as it is, else link)")
	flags.StringVar(&f.services, "service-dir", "", "`directory` that runit or s6 watches")
	flags.IntVar(&f.uid, "uid", -1, "`number` of a new account postern, for images (default: a free one)")
	flags.IntVar(&f.gid, "gid", -1, "`number` of a new group himds")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

func (c *cli) install(ctx context.Context, f installFlags) error {
	o, found, err := c.installOptions(f)
	if err != nil {
		return err
	}
	if err := c.portIsOurs(f); err != nil {
		return err
	}
	p, err := install.New(o)
	if err != nil {
		return installFault("install", err)
	}
	c.say("init system: %s", found.because(o.Init))
	live := install.Live{Init: o.Init, Running: f.root == "/" && found.runs(o.Init), Service: p.Service(), Binary: o.To}
	if f.dryRun {
		p.Later(live.Start(p))
		return c.showPlan(p, f, o.Init, "")
	}
	if err := needRoot("install", f.root); err != nil {
		return err
	}
	if err := c.applyInstall(ctx, p, live, f); err != nil {
		return control.NewFault(control.ExitFailed, "install", again()+"   # completes what was begun", "%w", err)
	}
	return c.showPlan(p, f, o.Init, nextAfterInstall(f, live))
}

// applyInstall changes the files, and then tells the init system.
func (c *cli) applyInstall(ctx context.Context, p *install.Plan, live install.Live, f installFlags) error {
	var account func(string) error // a tree has files instead of tools
	if f.root == "/" {
		account = func(name string) error { return live.AddAccount(ctx, name, f.uid, f.gid) }
	}
	if err := p.Apply(account, c.tellStep); err != nil {
		return err
	}
	commands := live.Start(p)
	if live.Running && live.Restarts(p) {
		if err := live.End(ctx); err != nil { // init starts the new one
			return err
		}
	}
	if err := live.Do(ctx, commands, c.tellStep); err != nil {
		return err
	}
	p.Later(commands)
	return nil
}

// again is the command that was given, as root would give it.
func again() string {
	words := []string{"sudo"}
	for _, a := range os.Args {
		words = append(words, quoted(a))
	}
	return strings.Join(words, " ")
}

// portIsOurs refuses to make clients come to a port that another program has.
func (c *cli) portIsOurs(f installFlags) error {
	if f.root != "/" || f.discovery != "on" {
		return nil
	}
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	host, err := newHost(hostOptions(cfg, slog.New(slog.DiscardHandler)))
	if err != nil {
		return hostFault(err)
	}
	for _, address := range cfg.Arc.Listen {
		owner := host.PortOwner(address)
		if owner == "" || portOfOurs(owner) {
			continue
		}
		return control.NewFault(control.ExitFailed, "port-owner", "sudo ss -ltnp   # stop that program, or: sudo postern install --discovery off",
			"install: nothing was changed: %s belongs to %s", address, owner)
	}
	return nil
}

// portOfOurs reports whether the owner of a port, "uid 997 (postern), pid 12
// (postern)", is the agent's account, or the agent or systemd as root. The name
// of a process alone says nothing: everybody chooses that of his own.
func portOfOurs(owner string) bool {
	account, process, _ := strings.Cut(owner, ", ")
	switch {
	case strings.HasSuffix(account, " ("+install.UserName+")"):
		return true
	case account == "uid 0" || account == "uid 0 (root)":
		return strings.HasSuffix(process, "(postern)") || strings.HasSuffix(process, "(systemd)")
	}
	return false
}

// installOptions turns the flags into what the room wants.
func (c *cli) installOptions(f installFlags) (install.Options, initFound, error) {
	o := install.Options{
		Root: f.root, Init: f.init, To: f.to, Parts: []string{install.PartAgent},
		Service: f.services, UID: f.uid, GID: f.gid,
	}
	if f.discovery == "on" {
		o.Parts = append(o.Parts, install.PartDiscovery)
	}
	usage := func(format string, args ...any) error {
		return control.NewFault(control.ExitUsage, "usage", "postern install --help", "install: "+format, args...)
	}
	if f.discovery != "on" && f.discovery != "off" || f.tokens != "" && f.tokens != "link" && f.tokens != "mount" {
		return o, initFound{}, usage("--discovery is on or off, --tokens is link or mount")
	}
	m, err := install.Installed(f.root)
	if err != nil {
		return o, initFound{}, installFault("install", err)
	}
	o.Mount = mounted(f, m)
	if o.Arc, err = c.arcAddress(f.root); err != nil {
		return o, initFound{}, err
	}
	found := initFound{install.Detect(f.root)}
	o = unsaid(o, m, found)
	if o.Init == "procd" {
		return o, found, control.NewFault(control.ExitUsage, "init-unknown", "postern run --help   # in /etc/init.d/postern: procd_set_param command /usr/bin/postern run",
			"install: procd is here, and there is no file for it yet")
	}
	if !slices.Contains(install.Inits(), o.Init) {
		return o, found, control.NewFault(control.ExitUsage, "init-unknown", "sudo postern install --init "+strings.Join(install.Inits(), "|"),
			"install: the init system is not known: %s", first(f.init, found.Evidence))
	}
	o.Binary, err = programToInstall(f.binary)
	return o, found, err
}

// unsaid fills in what was not asked for: as the installation that stands has
// it, since a second run upgrades and moves nothing; else by what was found.
func unsaid(o install.Options, m install.Manifest, found initFound) install.Options {
	to := "/usr/local/bin/postern"
	if o.Root != "/" {
		to = "/usr/bin/postern"
	}
	if !m.Stands() {
		m = install.Manifest{}
	}
	o.To = first(o.To, m.Binary, to)
	if o.Init == "" {
		o.Init = found.Init
		if m.Init != "" && (!found.Running || found.runs(m.Init)) { // another one that runs here counts more
			o.Init = m.Init
		}
	}
	if o.Service == "" && o.Init == m.Init {
		o.Service = m.Service
	}
	return o
}

// initFound is the init system that was found.
type initFound struct{ install.Found }

// because names an init system, and what showed it unless somebody chose it.
func (f initFound) because(init string) string {
	if init == f.Init {
		return init + ", found by: " + f.Evidence
	}
	return init + ", as it was chosen"
}

// runs reports whether init is what runs here. System V's init can have both
// a line and a script.
func (f initFound) runs(init string) bool {
	return f.Running && (f.Init == init || f.Init == "inittab" && init == "sysvinit")
}

func programToInstall(path string) ([]byte, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("install: %w", err)
		}
		path = self
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, control.NewFault(control.ExitUsage, "binary", "ls -l "+path, "install: %w", err)
	}
	return content, nil
}

// arcAddress is where clients shall look, by the configuration of the system
// in the tree.
func (c *cli) arcAddress(root string) (string, error) {
	cfg, err := c.configIn(root)
	if err != nil {
		return "", err
	}
	if !cfg.Arc.Enabled || len(cfg.Arc.Listen) == 0 {
		return "localhost:40342", nil
	}
	return cfg.Arc.Listen[0], nil
}

// needRoot: only root can give files away. A tree of one's own is an image
// that is packed later.
func needRoot(verb, root string) error {
	if platformRoot() || root != "/" {
		return nil
	}
	return control.NewFault(control.ExitPermission, "root", again(), "%s: only root can do this", verb)
}

// installFault says all that is in the way, the first with its cure.
func installFault(verb string, err error) error {
	var refusal *install.Refusal
	if !errors.As(err, &refusal) {
		return control.NewFault(control.ExitFailed, verb, "postern "+verb+" --help", verb+": %w", err)
	}
	return control.NewFault(control.ExitFailed, "foreign-file", refusal.Fix, verb+": nothing was changed: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// systemVerbs are the verbs that change the system, or an image.
func (c *cli) systemVerbs() []*verb.Command {
	return []*verb.Command{c.installVerb(), c.uninstallVerb(), c.discoveryVerb(), c.sealVerb(), c.imdsRouteVerb()}
}
