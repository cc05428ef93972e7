package platform

import (
	"errors"
	"log/slog"
)

// Options say where a Host keeps things and who besides the agent may read
// challenge files. The zero value means the defaults of the operating system
// in every field (firmware-notes/storage.md).
type Options struct {
	StateDir   string // databases; "/var/lib/postern"
	RuntimeDir string // control socket; "/run/postern"
	// TokensDir is the real directory of the challenge files. Empty: where
	// TokensLiteral leads if that exists, else RuntimeDir/tokens.
	TokensDir string
	// TokensLiteral is the path that clients compare. Empty: TokensDir if that
	// is given, else "/var/opt/azcmagent/tokens".
	TokensLiteral string
	Config        string // the configuration file; "/etc/postern/postern.toml"

	// Group may read challenge files: a name, or a number where there is no
	// group database. Empty: nobody beyond the agent, so that TokenReaders
	// means Private.
	Group string

	// AllowSticky accepts parents that others may write if they are root's and
	// sticky, as /tmp is: whoever made a name there keeps it, and what we use is
	// verified to be ours. For trials only: a clean-up of /tmp takes the state.
	AllowSticky bool

	// ReadyFD is a descriptor on which one newline says READY=1, as s6 wants
	// it; 0 for none. Unix only.
	ReadyFD int

	Log *slog.Logger // nil discards
}

// Confinement names what the process still needs once everything is open; the
// directories of Dirs, the system's own CA files and resolver files are added.
type Confinement struct {
	Read      []string // files or directories; missing ones are passed over
	ReadWrite []string // likewise
}

// ErrNoGroup is wrapped when the readers' group does not exist.
var ErrNoGroup = errors.New("no such group")

// ErrNoFamily is wrapped by Listen when this machine does not have the address
// family, as ::1 where IPv6 is disabled.
var ErrNoFamily = errors.New("address family is not available")
