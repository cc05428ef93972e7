package store

import "time"

// The records that the agent keeps, as they stand (JSON inside the envelope)
// in the databases. Fields are only ever added: an older binary must still
// read what a newer one wrote. Times are UTC, RFC 3339.

// DeviceRecord is what belongs to the whole device. identity.db, one record.
type DeviceRecord struct {
	AuthorityURL string    `json:"authority_url"`         // base URL of the certificate authority
	RootPEM      string    `json:"root_pem,omitempty"`    // the pinned root, PEM
	RootSHA256   string    `json:"root_sha256,omitempty"` // lower-case hex over the root's DER
	Issuer       string    `json:"issuer,omitempty"`      // token issuer URL found at connect, unless configured
	Assignments  bool      `json:"assignments,omitempty"` // the authority can say which identities are ours
	Generation   uint64    `json:"generation,omitempty"`  // newest assignment list that was applied
	ETag         string    `json:"etag,omitempty"`        // of the newest list with nothing left to do
	Fingerprint  []string  `json:"fingerprint,omitempty"` // hardware facts at connect, "name=digest"
	Floor        time.Time `json:"floor"`                 // the clock floor
	Exposed      string    `json:"exposed,omitempty"`     // who could read the keys, and since when; empty if nobody
	ConnectedAt  time.Time `json:"connected_at"`
}

// IdentityRecord is one identity. identity.db, keyed by client id.
type IdentityRecord struct {
	Kind       string `json:"kind"` // "SystemAssigned" or "UserAssigned"
	Name       string `json:"name"`
	ClientID   string `json:"client_id"` // lower-case GUID; also the key
	ObjectID   string `json:"object_id"`
	TenantID   string `json:"tenant_id"`
	ResourceID string `json:"resource_id"`

	Current  *KeyRecord `json:"current,omitempty"`
	Previous *KeyRecord `json:"previous,omitempty"` // kept until the current one has earned a token, and 24 h
	Pending  *KeyRecord `json:"pending,omitempty"`  // key made, certificate not yet received

	FirstRefusal time.Time `json:"first_refusal,omitzero"` // first of the two refusals that make Rejected
	RejectedAt   time.Time `json:"rejected_at,omitzero"`
	Rejection    string    `json:"rejection,omitempty"` // the authority's words, cleaned
}

// KeyRecord is a private key with its certificate chain.
type KeyRecord struct {
	Protection string    `json:"protection"`       // "file": the key stands in PKCS8; "tpm": in Handle
	PKCS8      []byte    `json:"pkcs8,omitempty"`  // DER
	Handle     string    `json:"handle,omitempty"` // name of a key that never leaves its device
	Chain      [][]byte  `json:"chain,omitempty"`  // DER, leaf first; empty while pending
	Made       time.Time `json:"made"`
	Proven     time.Time `json:"proven,omitzero"` // when it first earned a token
	Retired    bool      `json:"retired,omitempty"`
}

// TokenRecord is one cached token. cache.db, keyed by client id, NUL, resource.
type TokenRecord struct {
	ClientID    string        `json:"client_id"`
	Resource    string        `json:"resource"`
	AccessToken string        `json:"access_token"`
	Issued      time.Time     `json:"issued"`  // our wall clock when the answer came
	Expires     time.Time     `json:"expires"` // Issued + expires_in
	BootID      string        `json:"boot_id"`
	IssuedBoot  time.Duration `json:"issued_boot_ns"`  // boot-time clock when the answer came
	TrustedWall bool          `json:"trusted_wall"`    // the wall clock could be believed when it came
	LastUsed    time.Time     `json:"last_used"`       // hours are exact enough
	Owner       string        `json:"owner,omitempty"` // the peer that asked first: its quota pays
}

// ContactRecord is what is remembered of the authority. cache.db, one record,
// written at most once an hour.
type ContactRecord struct {
	LastContact   time.Time `json:"last_contact,omitzero"`
	LastFailure   time.Time `json:"last_failure,omitzero"`
	FailureClass  string    `json:"failure_class,omitempty"`
	FailureReason string    `json:"failure_reason,omitempty"`

	// The newest reading at which the wall clock was confirmed: it counts for
	// later processes of the same boot.
	ClockWall   time.Time     `json:"clock_wall,omitzero"`
	ClockBoot   time.Duration `json:"clock_boot_ns,omitempty"`
	ClockBootID string        `json:"clock_boot_id,omitempty"`
}
