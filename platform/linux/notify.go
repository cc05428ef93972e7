//go:build linux

package linux

import (
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// initSystem is what the init system told us about itself. The zero value is
// none: everything is a silent no-op.
type initSystem struct {
	socket   string // NOTIFY_SOCKET: a path, or @ and an abstract name
	watchdog time.Duration
	systemd  bool // we are a unit of systemd

	ready *readyFD
}

// readyFD is the descriptor of s6: one newline, once.
type readyFD struct {
	mu sync.Mutex
	f  *os.File
}

func newInitSystem(env func(string) string, fd int) initSystem {
	s := initSystem{socket: env("NOTIFY_SOCKET"), systemd: env("INVOCATION_ID") != ""}
	if s.socket != "" && s.socket[0] != '/' && s.socket[0] != '@' {
		s.socket = ""
	}
	if pid := env("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if us, err := strconv.ParseInt(env("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 && us < int64(time.Hour/time.Microsecond)*24*365 {
			s.watchdog = time.Duration(us) * time.Microsecond
		}
	}
	if fd > 2 {
		s.ready = &readyFD{f: os.NewFile(uintptr(fd), "ready")}
	}
	return s
}

// Notify tells the init system; without one it does nothing. An init system
// that does not listen is not our error.
func (h *Host) Notify(state string) {
	for line := range strings.SplitSeq(state, "\n") {
		if line == "READY=1" {
			h.init.ready.tell()
		}
	}
	if h.init.socket == "" {
		return
	}
	// A leading @ is the net package's word for an abstract name, too.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: h.init.socket, Net: "unixgram"})
	if err != nil {
		h.log.Debug("init system does not listen", "error", err)
		return
	}
	defer func() { _ = c.Close() }() // a datagram is sent or it is not
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return
	}
	if _, err := c.Write([]byte(state)); err != nil {
		h.log.Debug("init system does not listen", "error", err)
	}
}

func (r *readyFD) tell() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f == nil {
		return
	}
	_, _ = r.f.WriteString("\n") // whoever waits sees the close, too
	_ = r.f.Close()
	r.f = nil
}

// Watchdog is the time within which "WATCHDOG=1" is expected again
// (sd_watchdog_enabled(3)): send it twice as often. 0 for never.
func (h *Host) Watchdog() time.Duration { return h.init.watchdog }
