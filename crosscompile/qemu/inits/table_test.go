//go:build linux

package inits

// plan is what the story in the guest reads; crosscompile/qemu/guest has the
// same type.
type plan struct {
	Parent  string     `json:"parent"`
	PID1    string     `json:"pid1"`
	Stop    [][]string `json:"stop"`
	Start   [][]string `json:"start"`
	Reload  [][]string `json:"reload"`
	Status  []string   `json:"status,omitempty"`
	Once    bool       `json:"once"`
	Patient int        `json:"patient"`
	Again   int        `json:"again"`
	Off     [][]string `json:"off,omitempty"`
	Log     []string   `json:"log,omitempty"`
	Handed  bool       `json:"handed"`
	Systemd bool       `json:"systemd"`
	Found   string     `json:"found"`
	Install []string   `json:"install"`
	Begin   []place    `json:"begin"`
	Lasting []place    `json:"connected"`
}

type place struct {
	Path  string `json:"path"`
	Owner string `json:"owner"`
	Mode  string `json:"mode"`
	Link  string `json:"link,omitempty"`
}

// system is one init system: what a board's maker has set up before the
// product comes, and how one talks to it.
type system struct {
	name     string // as `postern install --init` calls it
	packages []string
	init     []string          // process 1
	files    map[string]string // of the board, 0644
	scripts  map[string]string // of the board, 0755
	links    map[string]string
	install  []string // further arguments of postern install
	memMB    int
	plan     plan
}

const (
	prepare = "/story/guest story-prepare"
	story   = "/story/guest story"
)

func systems() map[string]system {
	list := map[string]system{}
	for _, s := range []system{busybox(), inittab(), runit(), s6(), openrc(), sysvinit(), systemd()} {
		s.plan.Begin, s.plan.Lasting, s.plan.Patient, s.plan.Again = places(s.plan.Handed), secrets(), 180, 180
		s.plan.Install = append([]string{"--init", s.name, "--to", "/usr/bin/postern"}, s.install...)
		if s.plan.Found == "" {
			s.plan.Found = s.name
		}
		list[s.name] = s
	}
	return list
}

// places is how things lie whatever the init (firmware-notes/init-systems.md).
func places(handed bool) []place {
	control := place{Path: "/run/postern/control.sock", Owner: "postern:himds", Mode: "Srw-rw-rw-"}
	if handed {
		control.Owner = "root:root"
	}
	return []place{
		control,
		{Path: "/usr/bin/postern", Owner: "root:root", Mode: "-rwxr-xr-x"},
		{Path: "/var/lib/postern", Owner: "postern:himds", Mode: "drwx------"},
		{Path: "/run/postern", Owner: "postern:himds", Mode: "drwxr-xr-x"},
		{Path: "/run/postern/tokens", Owner: "postern:himds", Mode: "drwxr-x---"},
		{Path: "/run/postern/env", Owner: "postern:himds", Mode: "-rw-r--r--"},
		{Path: "/var/opt/azcmagent/tokens", Link: "/run/postern/tokens"},
	}
}

func secrets() []place {
	var list []place
	for _, name := range []string{"kek", "identity.db", "identity.db.bak", "cache.db"} {
		list = append(list, place{Path: "/var/lib/postern/" + name, Owner: "postern:himds", Mode: "-rw-------"})
	}
	return list
}

func busybox() system {
	return system{
		name: "busybox", packages: smallPackages(), init: []string{"/bin/busybox", "init"}, memMB: 128,
		files: map[string]string{"etc/inittab": "::sysinit:" + prepare + "\n::once:" + story + "\n"},
		plan: plan{
			PID1: "busybox", Parent: "busybox",
			Off:    [][]string{{"/bin/busybox", "poweroff"}},
			Stop:   withoutLine("/bin/busybox", "kill", "-HUP", "1"),
			Start:  [][]string{{"/bin/busybox", "mv", "/etc/inittab.kept", "/etc/inittab"}, {"/bin/busybox", "kill", "-HUP", "1"}},
			Reload: [][]string{{"/bin/busybox", "kill", "-HUP", "{pid}"}},
		},
	}
}

// withoutLine takes the agent's line out of the inittab and tells init, which
// ends what no line asks for any more.
func withoutLine(tell ...string) [][]string {
	return [][]string{
		{"/bin/busybox", "cp", "-p", "/etc/inittab", "/etc/inittab.kept"},
		{"/bin/busybox", "sed", "-i", "/postern run/d", "/etc/inittab"},
		tell,
	}
}

func inittab() system {
	return system{
		name: "inittab", packages: smallPackages(), init: []string{"/sbin/init"}, memMB: 128,
		files: map[string]string{"etc/inittab": "id:2:initdefault:\nsi::sysinit:" + prepare + "\nst:2345:once:" + story + "\n"},
		plan: plan{
			PID1: "init", Parent: "init",
			Stop:   withoutLine("/sbin/telinit", "q"),
			Start:  [][]string{{"/bin/busybox", "mv", "/etc/inittab.kept", "/etc/inittab"}, {"/sbin/telinit", "q"}},
			Reload: [][]string{{"/bin/busybox", "kill", "-HUP", "{pid}"}},
		},
	}
}

// sysvinit is the script, which starts the agent once.
func sysvinit() system {
	const script = "/etc/init.d/postern"
	s := inittab()
	s.name = "sysvinit"
	s.files = map[string]string{"etc/inittab": "id:2:initdefault:\nsi::sysinit:" + prepare + "\nl2:2:wait:/etc/rc2\nst:2345:once:" + story + "\n"}
	s.scripts = map[string]string{"etc/rc2": "#!/bin/sh\nfor s in /etc/rc2.d/S*; do $s start; done\n"}
	s.plan.Found = "inittab" // which of the two only a person can say
	s.plan.Once, s.plan.Status = true, []string{script, "status"}
	s.plan.Stop, s.plan.Start, s.plan.Reload = [][]string{{script, "stop"}}, [][]string{{script, "start"}}, [][]string{{script, "reload"}}
	s.plan.Log = []string{"/bin/busybox", "cat", "/var/log/postern.log"}
	return s
}

func runit() system {
	return system{
		name: "runit", packages: smallPackages(), init: []string{"/sbin/runit"}, memMB: 128,
		scripts: map[string]string{
			"etc/runit/1": "#!/bin/sh\nexec " + prepare + "\n",
			"etc/runit/2": "#!/bin/sh\n" + story + " &\nexec runsvdir -P /etc/service\n",
			"etc/runit/3": "#!/bin/sh\n",
		},
		plan: plan{
			PID1: "runit", Parent: "runsv",
			Stop:   [][]string{{"sv", "-w", "60", "stop", "/etc/service/postern"}},
			Start:  [][]string{{"sv", "-w", "60", "start", "/etc/service/postern"}},
			Reload: [][]string{{"sv", "hup", "/etc/service/postern"}},
			Log:    []string{"/bin/busybox", "cat", "/run/postern-log/current"},
		},
	}
}

func s6() system {
	return system{
		name: "s6", packages: smallPackages(), init: []string{"/story/s6"}, memMB: 128, install: []string{"--service-dir", "/etc/s6/service"},
		scripts: map[string]string{"story/s6": "#!/bin/sh\n" + prepare + "\n" + story + " &\nexec s6-svscan /etc/s6/service\n"},
		plan: plan{
			PID1: "s6-svscan", Parent: "s6-supervise",
			Stop:   [][]string{{"s6-svc", "-wD", "-T", "60000", "-d", "/etc/s6/service/postern"}},
			Start:  [][]string{{"s6-svc", "-wU", "-T", "60000", "-u", "/etc/s6/service/postern"}}, // U: the agent said that it is ready
			Reload: [][]string{{"s6-svc", "-h", "/etc/s6/service/postern"}},
		},
	}
}

func openrc() system {
	return system{
		name: "openrc", packages: smallPackages(), init: []string{"/bin/busybox", "init"}, memMB: 128,
		files: map[string]string{"etc/inittab": "::sysinit:" + prepare + "\n::sysinit:/bin/busybox syslogd -O /run/messages\n" +
			"::sysinit:/sbin/openrc sysinit\n::sysinit:/sbin/openrc boot\n::wait:/sbin/openrc default\n::once:" + story + "\n"},
		plan: plan{
			PID1: "busybox", Parent: "supervise-daemo", // 15 characters
			Stop:   [][]string{{"rc-service", "postern", "stop"}},
			Start:  [][]string{{"rc-service", "postern", "start"}},
			Reload: [][]string{{"rc-service", "postern", "reload"}},
			Log:    []string{"/bin/busybox", "cat", "/run/messages", "/var/log/postern.log"}, // OpenRC 0.45 knows no logger
		},
	}
}

func systemd() system {
	units := []string{"postern.socket", "postern-control.socket", "postern.service"}
	return system{
		name: "systemd", packages: systemdPackages(), init: []string{"/lib/systemd/systemd"}, memMB: 256,
		files: map[string]string{
			"etc/machine-id": "00000000000040008000000000000001\n",
			// masked: minutes of an emulated machine, and nothing for the story
			"etc/systemd/system/systemd-hwdb-update.service":            "",
			"etc/systemd/system/systemd-journal-catalog-update.service": "",
			"etc/systemd/system/serial-getty@.service":                  "",
			"etc/systemd/system/getty@.service":                         "",
			"etc/systemd/system/story.service":                          "[Unit]\nDescription=Story\n[Service]\nExecStart=" + story + "\n",
		},
		links: map[string]string{"etc/systemd/system/multi-user.target.wants/story.service": "/etc/systemd/system/story.service"},
		plan: plan{
			PID1: "systemd", Parent: "systemd", Handed: true, Systemd: true,
			Off:    [][]string{{"systemctl", "poweroff"}},
			Stop:   [][]string{append([]string{"systemctl", "stop"}, units...)},
			Start:  [][]string{append([]string{"systemctl", "start"}, units...)},
			Reload: [][]string{{"systemctl", "reload", "postern.service"}},
			Log:    []string{"journalctl", "--no-pager", "--output=cat", "--unit=postern.service"},
		},
	}
}
