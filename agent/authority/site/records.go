package site

import "time"

// The records of authority.db. Fields are only ever added. Times are UTC.

// The kinds of an identity, spelled as on the wire.
const (
	systemAssigned = "SystemAssigned"
	userAssigned   = "UserAssigned"
)

// siteRecord is the authority itself. Bucket "site", key "authority".
type siteRecord struct {
	Schema     int       `json:"schema"`
	TenantID   string    `json:"tenant_id"` // also the subscription in resource ids
	Created    time.Time `json:"created"`
	Generation uint64    `json:"generation"` // counts changes of assignments, over all machines
}

// issuerRecord is a certificate of the authority's own with its key. Bucket
// "issuer": "root", and "intermediate/N" with N counting up; "onboard" has a
// key only, which signs one-time tokens.
type issuerRecord struct {
	Certificate []byte    `json:"certificate,omitempty"` // DER
	PKCS8       []byte    `json:"pkcs8"`
	Made        time.Time `json:"made"`
}

// signingRecord is a key that signs access tokens. Bucket "signing", key kid.
type signingRecord struct {
	PKCS8 []byte    `json:"pkcs8"`
	Made  time.Time `json:"made"`
	From  time.Time `json:"from"` // signs from here on, until a later key does
}

// machineRecord is a device. Bucket "machine", key vmId.
type machineRecord struct {
	VMID         string            `json:"vm_id"`
	Name         string            `json:"name"`
	Group        string            `json:"group"`
	ResourceID   string            `json:"resource_id"`
	Location     string            `json:"location,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	System       string            `json:"system"`          // client id of the system-assigned identity
	Holds        []string          `json:"holds,omitempty"` // client ids of user-assigned identities
	CreatedBy    string            `json:"created_by"`
	Created      time.Time         `json:"created"`
	Disconnected time.Time         `json:"disconnected,omitzero"`
	Generation   uint64            `json:"generation"`
	LastContact  time.Time         `json:"last_contact,omitzero"` // exact to an hour
}

// identityRecord is who a token speaks for. Bucket "identity", key client id.
// A deleted one stays, marked, so that its ids are never given out again.
type identityRecord struct {
	Kind        string            `json:"kind"`
	Name        string            `json:"name"`
	Group       string            `json:"group"`
	ClientID    string            `json:"client_id"`
	ObjectID    string            `json:"object_id"`
	Application string            `json:"application_object_id"`
	ResourceID  string            `json:"resource_id"`
	VMID        string            `json:"vm_id,omitempty"` // system-assigned: whose
	Tags        map[string]string `json:"tags,omitempty"`
	CreatedBy   string            `json:"created_by"`
	Created     time.Time         `json:"created"`
	Disabled    bool              `json:"disabled,omitempty"`
	Deleted     time.Time         `json:"deleted,omitzero"`
}

// holdingRecord is one identity on one machine. Bucket "holding", key
// vmId/client id. A user-assigned identity is assigned as long as it exists.
type holdingRecord struct {
	VMID       string    `json:"vm_id"`
	ClientID   string    `json:"client_id"`
	Assigned   time.Time `json:"assigned"`
	By         string    `json:"by"`
	Enroll     bool      `json:"enroll,omitempty"`     // an operator allowed a certificate that was not fetched yet
	Generation uint64    `json:"generation,omitempty"` // of the list in which it was first allowed
	Claim      string    `json:"claim,omitempty"`      // jti of the one-time token that is out
	Serials    []string  `json:"serials,omitempty"`    // certificates, oldest first
}

// certificateRecord is an issued certificate. Bucket "certificate", key serial
// (decimal). Bucket "thumbprint" leads from "s256/…" and "s1/…" (unpadded
// base64url) to the serial.
type certificateRecord struct {
	Serial    string    `json:"serial"`
	DER       []byte    `json:"der"`
	VMID      string    `json:"vm_id"`
	ClientID  string    `json:"client_id"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Issued    time.Time `json:"issued"`
	By        string    `json:"by"`            // "sign", "renew", "rekey"
	Seen      time.Time `json:"seen,omitzero"` // first use, or word that it arrived; zero: its answer may have been lost
	Revoked   time.Time `json:"revoked,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// claimRecord is a one-time token. Bucket "claim", key jti. It is usable while
// it stands here with Used zero.
type claimRecord struct {
	JTI      string            `json:"jti"`
	Kind     string            `json:"kind"` // claimOnboard, claimReonboard, claimEnroll
	Machine  string            `json:"machine"`
	Group    string            `json:"group,omitempty"`
	Location string            `json:"location,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	VMID     string            `json:"vm_id"`
	ClientID string            `json:"client_id"`
	ObjectID string            `json:"object_id"`
	By       string            `json:"by"`
	Made     time.Time         `json:"made"`
	Expires  time.Time         `json:"expires"`
	Used     time.Time         `json:"used,omitzero"`
}

// The kinds of one-time tokens.
const (
	claimOnboard   = "onboard"   // makes a machine
	claimReonboard = "reonboard" // gives an existing machine a new key
	claimEnroll    = "enroll"    // fetches the certificate of an assigned identity
)

// replayRecord is an assertion id that was seen. Bucket "replay", key a digest;
// bucket "replay_until" leads from "unix seconds/digest" to the identity, so
// that the sweep meets the oldest first.
type replayRecord struct {
	ClientID string    `json:"client_id"`
	Until    time.Time `json:"until"`
}

// auditHead is where the ring of audit records begins and ends. Bucket
// "audit_head", key "head".
type auditHead struct {
	First       uint64 `json:"first"` // oldest that is kept; 1 if none was dropped
	Next        uint64 `json:"next"`
	Bytes       int64  `json:"bytes"`
	Last        string `json:"last"`        // digest of the newest record
	Exported    uint64 `json:"exported"`    // all below were read with Export
	Overwritten uint64 `json:"overwritten"` // dropped without having been exported
}
