//go:build linux

package install

import (
	"fmt"
	"net"
	"slices"
	"strings"

	initfiles "postern/platform/linux/init"
)

// Inits are the names of init systems for which we have files. "inittab" is
// the line by which the init of System V starts the agent again whenever it
// ends; "sysvinit" is the script, which starts it once.
func Inits() []string {
	return []string{"systemd", "openrc", "runit", "s6", "inittab", "sysvinit", "busybox"}
}

const runtimeDir = "/run/postern"

// items are all that is to be there, in the order in which it is made: what
// starts the agent comes last.
func (p *Plan) items() ([]item, error) {
	if !p.has(PartAgent) {
		return p.discovery()
	}
	agent := func(it item) item { it.part = PartAgent; return it }
	list := []item{
		agent(item{kind: Account, name: GroupName}),
		agent(item{kind: Account, name: UserName}),
		agent(item{kind: Directory, path: "/etc/postern", mode: 0o755}),
		agent(item{kind: Directory, path: "/var/lib/postern", mode: 0o700, account: true}),
	}
	if p.root.dir == "/" { // in an image it is made at each boot
		list = append(list, agent(item{kind: Directory, path: runtimeDir, mode: 0o755, account: true}))
	}
	list = append(list, agent(item{kind: File, path: p.options.To, mode: 0o755, content: p.options.Binary}))
	if p.has(PartDiscovery) {
		found, err := p.discovery()
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	files, err := p.initItems()
	return append(list, files...), err
}

func (p *Plan) initItems() ([]item, error) {
	switch p.options.Init {
	case "systemd":
		return p.systemd()
	case "openrc":
		return p.files(
			place{"openrc/postern", "/etc/init.d/postern", 0o755},
			place{"", "/etc/runlevels/default/postern", 0}.to("/etc/init.d/postern"))
	case "sysvinit":
		return p.sysvinit()
	case "inittab":
		return p.inittab("sysvinit/inittab")
	case "busybox":
		return p.inittab("busybox/inittab")
	case "runit":
		return p.runit()
	case "s6":
		return p.s6()
	}
	return nil, fmt.Errorf("there are no files for the init system %q, only for %s", p.options.Init, strings.Join(Inits(), ", "))
}

// place says where a shipped file goes; with to it is a link.
type place struct {
	shipped, path string
	mode          uint32
}

type linked struct {
	place
	target string
}

func (pl place) to(target string) linked { return linked{pl, target} }

type target interface {
	item(binary string) (item, error)
}

func (pl place) item(binary string) (item, error) {
	content, err := initfiles.File(pl.shipped, binary)
	return item{part: PartAgent, kind: File, path: pl.path, mode: pl.mode, content: content}, err
}

func (l linked) item(string) (item, error) {
	return item{part: PartAgent, kind: Link, path: l.path, target: l.target}, nil
}

func (p *Plan) files(targets ...target) ([]item, error) {
	list := make([]item, 0, len(targets))
	for _, t := range targets {
		it, err := t.item(p.options.To)
		if err != nil {
			return nil, err
		}
		list = append(list, it)
	}
	return list, nil
}

// lib is where files of the vendor go: /usr/lib, or /etc where that cannot be
// written.
func (p *Plan) lib(sub string) string {
	if p.etc {
		return "/etc/" + sub
	}
	return "/usr/lib/" + sub
}

// alias is the unit by which programs look for an Arc agent.
const alias = "himdsd.service"

func (p *Plan) systemd() ([]item, error) {
	units, wants := p.lib("systemd/system"), "/etc/systemd/system"
	list := []target{
		place{"systemd/sysusers.conf", p.lib("sysusers.d/postern.conf"), 0o644},
		place{"systemd/tmpfiles.conf", p.lib("tmpfiles.d/postern.conf"), 0o644},
		place{"systemd/90-postern.preset", p.lib("systemd/system-preset/90-postern.preset"), 0o644},
		place{"systemd/postern.service.d/40-addresses.conf", "/usr/lib/postern/examples/40-addresses.conf", 0o644},
	}
	if p.etc {
		list = list[:3]
	}
	for _, unit := range []string{"postern-connect.service", "postern-imds.service", "postern-imds.socket", "postern-control.socket", "postern.socket", "postern.service"} {
		list = append(list, place{"systemd/" + unit, units + "/" + unit, 0o644})
	}
	enable := func(unit, by string) target {
		return place{path: wants + "/" + by + "/" + unit}.to(units + "/" + unit)
	}
	list = append(list, enable("postern.socket", "sockets.target.wants"), enable("postern-control.socket", "sockets.target.wants"),
		enable("postern.service", "multi-user.target.wants"), place{path: wants + "/" + alias}.to(units+"/postern.service"))
	return p.files(list...)
}

func (p *Plan) sysvinit() ([]item, error) {
	list := []target{place{"sysvinit/postern", "/etc/init.d/postern", 0o755}}
	for _, level := range []string{"0", "1", "6"} {
		list = append(list, place{path: "/etc/rc" + level + ".d/K01postern"}.to("../init.d/postern"))
	}
	for _, level := range []string{"2", "3", "4", "5"} {
		list = append(list, place{path: "/etc/rc" + level + ".d/S20postern"}.to("../init.d/postern"))
	}
	return p.files(list...)
}

func (p *Plan) inittab(shipped string) ([]item, error) {
	line, err := initfiles.File(shipped, p.options.To)
	return []item{{part: PartAgent, kind: Line, path: "/etc/inittab", content: line}}, err
}

// runit keeps what supervise writes on /run, so that /etc may be read-only.
func (p *Plan) runit() ([]item, error) {
	const dir = "/etc/sv/postern"
	return p.files(
		place{"runit/run", dir + "/run", 0o755},
		place{"runit/log/run", dir + "/log/run", 0o755},
		place{path: dir + "/supervise"}.to("/run/runit.postern"),
		place{path: dir + "/log/supervise"}.to("/run/runit.postern-log"),
		place{path: p.service("/etc/service", "/etc/runit/runsvdir/default") + "/postern"}.to(dir))
}

// The directories of s6-supervise.
const (
	s6Supervise = "/run/s6.postern"
	s6Event     = "/run/s6.postern-event"
)

func (p *Plan) s6() ([]item, error) {
	const dir = "/etc/s6/sv/postern"
	return p.files(
		place{"s6/run", dir + "/run", 0o755},
		place{"s6/notification-fd", dir + "/notification-fd", 0o644},
		place{path: dir + "/supervise"}.to(s6Supervise),
		place{path: dir + "/event"}.to(s6Event),
		place{path: p.service("/etc/s6/service", "/service", "/etc/service") + "/postern"}.to(dir))
}

// service is the directory that the supervisor watches: the one that was
// named, else the first that exists, else the first.
func (p *Plan) service(usual ...string) string {
	if p.options.Service == "" {
		p.options.Service = usual[0]
		if i := slices.IndexFunc(usual, p.root.isDirectory); i >= 0 {
			p.options.Service = usual[i]
		}
	}
	return p.options.Service
}

// discovery is what makes clients find us. Every program on the device that
// looks for an Arc agent uses it from then on.
func (p *Plan) discovery() ([]item, error) {
	_, port, err := net.SplitHostPort(p.options.Arc)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", p.options.Arc, err)
	}
	endpoint, imds := "IDENTITY_ENDPOINT=http://localhost:"+port+"/metadata/identity/oauth2/token", "IMDS_ENDPOINT=http://localhost:"+port
	part := func(it item) item { it.part = PartDiscovery; return it }
	list := []item{
		part(item{kind: Directory, path: "/var/opt/azcmagent", mode: 0o755}),
		part(item{kind: File, path: "/etc/profile.d/postern.sh", mode: 0o644, content: []byte("export " + endpoint + "\nexport " + imds + "\n")}),
	}
	if p.options.Init == "systemd" {
		// Other software reads this file: its name, and IMDS_ENDPOINT last on its line.
		text := "[Manager]\nDefaultEnvironment=\"" + endpoint + "\" \"" + imds + "\"\n"
		list = append(list, part(item{kind: File, path: p.lib("systemd/system.conf.d/azcmagent.conf"), mode: 0o644, content: []byte(text)}))
	}
	tokens, err := p.tokens()
	if err != nil {
		return nil, err
	}
	list = append(list, tokens...)
	for _, marker := range Markers() {
		list = append(list, part(item{kind: Link, path: marker, target: p.options.To}))
	}
	return list, nil
}

// Markers are the paths by which clients see that an Arc agent is here.
func Markers() []string {
	return []string{"/var/opt/azcmagent/bin/himds", "/opt/azcmagent/bin/himds"}
}

const (
	tokensPath  = "/var/opt/azcmagent/tokens" //nolint:gosec // a directory, no credential
	mountUnit   = "var-opt-azcmagent-tokens.mount"
	mountDropIn = "postern.service.d/50-tokens-mount.conf" // lets the hardened unit write there
)

// tokens is the path that clients compare byte for byte: a link, or the mount
// unit where containers mount the directory above it.
func (p *Plan) tokens() ([]item, error) {
	const path, unit = tokensPath, mountUnit
	if !p.options.Mount {
		return []item{{part: PartDiscovery, kind: Link, path: path, target: runtimeDir + "/tokens"}}, nil
	}
	if p.options.Init != "systemd" {
		return nil, &Refusal{Path: path, Problem: "can be a mount under systemd only", Fix: "sudo postern install --tokens link"}
	}
	list, err := p.files(
		place{"systemd/" + unit, p.lib("systemd/system/" + unit), 0o644},
		place{path: "/etc/systemd/system/multi-user.target.wants/" + unit}.to(p.lib("systemd/system/"+unit)),
		place{path: "/etc/systemd/system/postern.service.requires/" + unit}.to(p.lib("systemd/system/"+unit)),
		place{"systemd/" + mountDropIn, p.lib("systemd/system/" + mountDropIn), 0o644})
	list = append([]item{{kind: Directory, path: path, mode: 0o755, mounted: true}}, list...)
	for i := range list {
		list[i].part = PartDiscovery
	}
	return list, err
}
