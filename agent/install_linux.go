package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"postern/agent/control"
	"postern/platform/linux/install"
)

// installFlags are the flags of install.
type installFlags struct {
	root, init, binary, to      string
	discovery, tokens, services string
	uid, gid                    int
	dryRun                      bool
}

func (c *cli) installVerb() *cobra.Command {
	var f installFlags
	long, example := manual("Put the agent on this system, or with --root into the tree of an image: account, directories, binary, the files of the init system, "+
		"and what makes clients find it. It refuses what somebody else put there, before it changes anything; repeated, it completes or upgrades.",
		[]string{"sudo ./postern install", "sudo ./postern install --root /mnt/image --init busybox --dry-run"},
		"0 installed; 1 something is in the way; 2 usage; 7 not root")
	cmd := &cobra.Command{
		Use: "install", Short: "Put the agent on this system", Long: long, Example: example,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.install(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "/", "`directory` of another system's tree")
	flags.StringVar(&f.init, "init", "", "`name` of the init system: "+strings.Join(install.Inits(), ", ")+" (default: found)")
	flags.StringVar(&f.binary, "binary", "", "`file` to install as the program (default: this one)")
	flags.StringVar(&f.to, "to", "", "`path` of the installed program (default /usr/local/bin/postern, with --root /usr/bin/postern)")
	flags.StringVar(&f.discovery, "discovery", "on", "on, or off: clients do not find the agent until postern discovery on")
	flags.StringVar(&f.tokens, "tokens", "link", "link, or mount: a tmpfs of its own, where containers mount the directory above (systemd)")
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
	p, err := install.New(o)
	if err != nil {
		return installFault("install", err)
	}
	if f.dryRun {
		return c.showPlan(p, f, o, "")
	}
	if err := needRoot("install", f.root); err != nil {
		return err
	}
	if err := p.Apply(nil, c.tellStep); err != nil {
		return control.NewFault(control.ExitFailed, "install", "sudo "+strings.Join(os.Args, " ")+"   # completes what was begun", "%w", err)
	}
	_ = found
	return c.showPlan(p, f, o, nextAfterInstall(f))
}

// installOptions turns the flags into what the room wants.
func (c *cli) installOptions(f installFlags) (install.Options, install.Found, error) {
	o := install.Options{
		Root: f.root, Init: f.init, To: f.to, Discovery: f.discovery == "on", Mount: f.tokens == "mount",
		Arc: "localhost:40342", Service: f.services, UID: f.uid, GID: f.gid,
	}
	usage := func(format string, args ...any) error {
		return control.NewFault(control.ExitUsage, "usage", "postern install --help", "install: "+format, args...)
	}
	if f.discovery != "on" && f.discovery != "off" || f.tokens != "link" && f.tokens != "mount" {
		return o, install.Found{}, usage("--discovery is on or off, --tokens is link or mount")
	}
	if o.To == "" {
		o.To = "/usr/local/bin/postern"
		if f.root != "/" {
			o.To = "/usr/bin/postern"
		}
	}
	found := install.Detect(f.root)
	if o.Init == "" {
		o.Init = found.Init
	}
	if o.Init == "procd" {
		return o, found, control.NewFault(control.ExitUsage, "init-unknown", "postern run --help   # write /etc/init.d/postern with procd_set_param command postern run",
			"install: procd is here (%s), and we have no file for it yet", found.Evidence)
	}
	if !slices.Contains(install.Inits(), o.Init) {
		return o, found, control.NewFault(control.ExitUsage, "init-unknown", "sudo postern install --init "+strings.Join(install.Inits(), "|"),
			"install: the init system is not known: %s", first(o.Init, found.Evidence))
	}
	binary := f.binary
	if binary == "" {
		self, err := os.Executable()
		if err != nil {
			return o, found, fmt.Errorf("install: %w", err)
		}
		binary = self
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return o, found, control.NewFault(control.ExitUsage, "binary", "ls -l "+binary, "install: %w", err)
	}
	o.Binary = content
	return o, found, nil
}

// needRoot: only root can give files away. A tree of one's own is an image
// that is packed later.
func needRoot(verb, root string) error {
	if platformRoot() || root != "/" {
		return nil
	}
	return control.NewFault(control.ExitPermission, "root", "sudo "+strings.Join(os.Args, " "), "%s: only root can do this", verb)
}

// installFault says all that is in the way, the first with its cure.
func installFault(verb string, err error) error {
	var refusal *install.Refusal
	if !errors.As(err, &refusal) {
		return control.NewFault(control.ExitFailed, verb, "postern "+verb+" --help", verb+": %w", err)
	}
	return control.NewFault(control.ExitFailed, "foreign-file", refusal.Fix, verb+": nothing was changed: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// installDocument is the plan as data.
type installDocument struct {
	Schema string         `json:"schema"`
	Root   string         `json:"root"`
	Init   string         `json:"init,omitempty"`
	DryRun bool           `json:"dry_run"`
	Steps  []install.Step `json:"steps"`
	Next   string         `json:"next,omitempty"`
}

func (c *cli) showPlan(p *install.Plan, f installFlags, o install.Options, next string) error {
	if c.json {
		return c.printJSON(installDocument{Schema: "postern.install/1", Root: f.root, Init: o.Init, DryRun: f.dryRun, Steps: p.Steps, Next: next})
	}
	if f.dryRun {
		for _, s := range p.Steps {
			c.tellStep(s)
		}
		c.say("nothing was changed: --dry-run")
	}
	if next != "" {
		c.say("next: %s", next)
	}
	return nil
}

// tellStep prints one step for a person.
func (c *cli) tellStep(s install.Step) {
	if c.json {
		return
	}
	line := fmt.Sprintf("%-10s %-9s %s", s.Do, s.Kind, s.Path)
	if s.Target != "" {
		line += " -> " + s.Target
	}
	if s.Mode != "" {
		line += "  (" + s.Owner + " " + s.Mode + ")"
	}
	if s.Note != "" {
		line += "  # " + s.Note
	}
	c.print("%s", line)
}

func nextAfterInstall(f installFlags) string {
	if f.root != "/" {
		return ""
	}
	return "sudo postern connect --claim-file CLAIM   # or without any account: sudo postern dev"
}
