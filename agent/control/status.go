package control

import (
	"slices"
	"time"

	"postern/agent/lifecycle"
)

// Status is the document of `postern status --json`, schema postern.status/1.
// Absent means unknown. Durations are whole seconds, sizes bytes.
type Status struct {
	Schema     string          `json:"schema"`
	State      lifecycle.State `json:"state"`
	Until      time.Time       `json:"until,omitzero"` // last useful instant without network
	Name       string          `json:"name,omitempty"`
	Version    string          `json:"version"`
	Mode       string          `json:"mode"` // "run" or "dev"
	PID        int             `json:"pid"`
	Started    time.Time       `json:"started"`
	Now        time.Time       `json:"now"`
	Identities []Identity      `json:"identities"`
	Authority  Authority       `json:"authority,omitzero"`
	Tokens     Tokens          `json:"tokens"`
	Callers    []LastCaller    `json:"callers,omitempty"` // administrators only
	Clock      Clock           `json:"clock"`
	Store      Store           `json:"store"`
	Endpoint   Endpoint        `json:"endpoint"`
	Sandbox    string          `json:"sandbox"`
	Watchdog   int64           `json:"watchdog_s,omitempty"` // within which the init system wants a sign of life
	Warnings   []string        `json:"warnings,omitempty"`
	Problem    string          `json:"problem,omitempty"`
	Fix        string          `json:"fix,omitempty"`
}

// Identity is one identity in a Status.
type Identity struct {
	Kind       string          `json:"kind"`
	Name       string          `json:"name"`
	State      lifecycle.State `json:"state"`
	Until      time.Time       `json:"until,omitzero"`
	ClientID   string          `json:"client_id"`
	ObjectID   string          `json:"object_id,omitempty"`
	TenantID   string          `json:"tenant_id,omitempty"`
	ResourceID string          `json:"resource_id,omitempty"`
	NotBefore  time.Time       `json:"not_before,omitzero"`
	NotAfter   time.Time       `json:"not_after,omitzero"`
	RenewAt    time.Time       `json:"renew_at,omitzero"`
	NextTry    time.Time       `json:"next_try,omitzero"`
	LastError  string          `json:"last_error,omitempty"`
	Key        string          `json:"key,omitempty"` // protection: "file", "tpm"
	Exposed    string          `json:"exposed,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Fix        string          `json:"fix,omitempty"`
}

// Authority is the contact in a Status.
type Authority struct {
	URL         string    `json:"url,omitempty"`
	LastContact time.Time `json:"last_contact,omitzero"`
	Undated     bool      `json:"last_contact_undated,omitempty"` // there was one, and when cannot be said
	LastFailure time.Time `json:"last_failure,omitzero"`
	Failure     string    `json:"failure,omitempty"`
}

// Tokens sums up the cache in a Status.
type Tokens struct {
	Cached  int           `json:"cached"`
	Held    int           `json:"held_back,omitempty"` // kept until the clock can say whether they live
	Soonest time.Time     `json:"soonest_expiry,omitzero"`
	Hits    uint64        `json:"from_cache"`
	Fetched uint64        `json:"fetched"`
	List    []CachedToken `json:"list,omitempty"` // administrators only
}

// CachedToken is one entry of the cache; the token itself is never shown.
type CachedToken struct {
	ClientID string    `json:"client_id"`
	Resource string    `json:"resource"`
	Expires  time.Time `json:"expires"`
}

// LastCaller is who asked for a token lately.
type LastCaller struct {
	Time     time.Time `json:"time"`
	Peer     string    `json:"peer"`
	User     string    `json:"user,omitempty"`
	Resource string    `json:"resource"`
	Agent    string    `json:"agent,omitempty"`
}

// Clock is the trust in the clock.
type Clock struct {
	Trusted bool      `json:"trusted"`
	Reason  string    `json:"reason"`
	Floor   time.Time `json:"floor,omitzero"`
}

// Store is the state of both databases.
type Store struct {
	Identity     string `json:"identity"` // "disk", "memory", "none", "damaged", "insecure"
	Cache        string `json:"cache"`
	Bytes        int64  `json:"bytes"`
	WrittenBytes int64  `json:"written_today_bytes"`
	Protection   string `json:"key_protection"`
	Problem      string `json:"problem,omitempty"`
}

// Endpoint says where clients are answered.
type Endpoint struct {
	Arc       []string `json:"arc,omitempty"`
	IMDS      []string `json:"imds,omitempty"`
	Workloads []string `json:"workloads,omitempty"`
	TokensDir string   `json:"tokens_dir,omitempty"`
	Watch     string   `json:"watch,omitempty"` // "inotify", or why it is "polling"
	Problem   string   `json:"problem,omitempty"`
}

// Public returns the status without what only administrators may see.
func (s Status) Public() Status {
	s.Callers = nil
	s.Tokens.List = nil
	return s
}

// Insecure reports whether others could read the keys, whatever the state is.
func (s Status) Insecure() bool {
	return slices.ContainsFunc(s.Identities, func(id Identity) bool { return id.Exposed != "" })
}

// Word is the state as people read it.
func (s Status) Word() string {
	if s.Insecure() {
		return s.State.String() + ", insecure"
	}
	return s.State.String()
}

// Exit is the exit code that the status stands for; 0 if all is well.
func (s Status) Exit() int {
	if s.Insecure() {
		return ExitDamaged
	}
	return StateExit(s.State)
}

// StateExit is the exit code that a state stands for; 0 for Connected.
func StateExit(s lifecycle.State) int {
	switch s {
	case lifecycle.Damaged:
		return ExitDamaged
	case lifecycle.Unenrolled:
		return ExitUnenrolled
	case lifecycle.Moved:
		return ExitMoved
	case lifecycle.Rejected:
		return ExitRejected
	case lifecycle.ClockUntrusted, lifecycle.Offline:
		return ExitOffline
	case lifecycle.Expired:
		return ExitExpired
	}
	return ExitDone
}
