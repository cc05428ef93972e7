package config

import "time"

// Config is the whole configuration. The zero value is not one: use Load, with
// an empty path for the defaults. Fields that are documented as "empty: …"
// leave the choice to the platform or the authority.
type Config struct {
	StateDir             string        // databases and keys, absolute; empty: the system's place
	RuntimeDir           string        // control socket, absolute; empty: the system's place
	TokensDir            string        // challenge files, absolute; empty: the system's place
	Group                string        // readers of the token directory, a name or a number
	User                 string        // account to become when started as root; empty: stay
	Log                  string        // "logfmt" or "json"
	LogLevel             string        // "debug", "info", "warn" or "error"
	Clock                string        // "auto" or "trusted"
	OfflineAfter         time.Duration // without contact, until Offline
	MemoryLimit          Size          // soft limit of the Go heap
	Proxy                string        // "", "environment" or a URL
	ProxyCredentialsFile string        // absolute; empty: none
	AllowRemoteState     bool          // state may lie on a network file system

	Arc        Arc
	IMDS       IMDS
	Workloads  []Workload
	Grants     []Grant
	Authority  Authority
	Token      Token
	Identities []Identity
	Key        Key
	Instance   Instance
	Audit      Audit

	path   string
	origin map[string]Origin
}

// Arc is the two-request flavour on loopback (firmware-notes/wire.md).
type Arc struct {
	Enabled bool
	Listen  []string // loopback "address:port", both families with one port
}

// IMDS is the one-request flavour (firmware-notes/wire.md).
type IMDS struct {
	Enabled bool
	Listen  []string // "169.254.169.254:80" or loopback "address:port"
	Allow   string   // "granted" or "anyone"
	Hosts   []string // further names allowed in Host, lower case
}

// Workload is one App Service listener (firmware-notes/wire.md).
type Workload struct {
	Name       string   // unique
	Listen     string   // "address:port", loopback or of a bridge
	Hosts      []string // further names allowed in Host, lower case
	Identities []string // client ids, or "system"; empty: all
	Resources  []string // exact, or a prefix with a trailing "*"; empty: all
}

// Grant allows one caller one identity for some resources (firmware-notes/attack-surface.md).
type Grant struct {
	Who       string   // "uid:1001", "user:NAME", "group:NAME", "listener:NAME", …
	Identity  string   // client id, or "system"
	Resources []string // exact, or a prefix with a trailing "*"
}

// Authority is who issues certificates.
type Authority struct {
	Driver      string // "stepca"
	URL         string // https; empty: as found at connect
	RootSHA256  string // of the root to pin, lower-case hex; empty: as found at connect
	CAFile      string // PEM roots to use instead, absolute; empty: none
	Assignments bool   // ask it which identities are ours
}

// Token is who issues tokens, and how it is asked (firmware-notes/authorities.md).
type Token struct {
	Issuer        string // https; empty: as found at connect
	TokenURL      string // https; empty: discovered from the issuer
	Preset        string // "" or "entra"
	Tenant        string // with preset "entra"
	Cloud         string // "public", "usgov", "usdod" or "china", with preset "entra"
	Auth          string // "private_key_jwt" or "tls_client_auth"
	Alg           string // "auto", "PS256", "RS256" or "ES256"
	AssertionAud  string // "token_endpoint" or "issuer"
	ResourceParam string // "entra_scope", "resource", "audience" or "scope:NAME"
	SendX5C       bool   // put the chain into the assertion
	Roots         string // PEM roots to use alone, absolute; empty: the authority's
	MaxResources  int    // live (identity, resource) entries
}

// Identity is an identity given by configuration, for authorities that keep no
// assignments.
type Identity struct {
	Kind       string // "SystemAssigned" or "UserAssigned"
	Name       string
	ClientID   string // unique; a GUID is lower case
	ObjectID   string
	TenantID   string
	ResourceID string
}

// Key says how device keys are made and kept.
type Key struct {
	Algorithm  string // "EC-P256" or "RSA-2048"
	Protection string // "file"
}

// Instance is what /metadata/instance tells about the device.
type Instance struct {
	Name           string // empty: the host name
	Location       string
	SubscriptionID string
	ResourceGroup  string
	Tags           map[string]string
}

// Audit bounds the audit ring.
type Audit struct {
	MaxRecords int
}

// Path is the file that was read, empty if none was.
func (c Config) Path() string { return c.path }

// Limits of the file (firmware-notes/limits.md).
const (
	MaxSize       = 256 << 10 // bytes; a reader may stop one byte beyond
	MaxGrants     = 1000
	MaxWorkloads  = 64
	MaxIdentities = 64
)
