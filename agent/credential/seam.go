package credential

import "postern/store"

// IdentityFile is *store.IdentityFile.
type IdentityFile interface {
	Exists() bool
	Damaged() error
	Device() (store.DeviceRecord, error)
	Identities() ([]store.IdentityRecord, error)
	Update(func(IdentityTx) error) error
	Destroy() error
}

// IdentityTx is *store.IdentityTx.
type IdentityTx interface {
	Device() (store.DeviceRecord, error)
	PutDevice(store.DeviceRecord) error
	Identity(clientID string) (store.IdentityRecord, error)
	PutIdentity(store.IdentityRecord) error
	DeleteIdentity(clientID string) error
}
