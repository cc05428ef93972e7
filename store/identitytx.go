package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// IdentityTx is one Update of an IdentityFile. It belongs to the function that
// got it and sees its own changes.
type IdentityTx struct {
	records map[place][]byte
	changed map[place]bool
}

// Device returns the device's record, or ErrNotFound.
func (tx *IdentityTx) Device() (DeviceRecord, error) {
	var d DeviceRecord
	return d, tx.get(place{deviceBucket, deviceKey}, &d)
}

// PutDevice stores the device's record.
func (tx *IdentityTx) PutDevice(d DeviceRecord) error {
	return tx.put(place{deviceBucket, deviceKey}, d)
}

// Identity returns the identity with that client id, or ErrNotFound.
func (tx *IdentityTx) Identity(clientID string) (IdentityRecord, error) {
	var id IdentityRecord
	return id, tx.get(identityPlace(clientID), &id)
}

// PutIdentity stores id under its client id, which must not be empty.
func (tx *IdentityTx) PutIdentity(id IdentityRecord) error {
	if id.ClientID == "" {
		return errors.New("identity without a client id")
	}
	return tx.put(identityPlace(id.ClientID), id)
}

// DeleteIdentity removes an identity; ErrNotFound if there is none. Its key
// stays readable, for who has the key-encryption key, until the page is used again.
func (tx *IdentityTx) DeleteIdentity(clientID string) error {
	at := identityPlace(clientID)
	if tx.records[at] == nil {
		return fmt.Errorf("%s: %w", at, ErrNotFound)
	}
	delete(tx.records, at)
	tx.changed[at] = true
	return nil
}

// Identities returns all identities in the order of client ids.
func (tx *IdentityTx) Identities() ([]IdentityRecord, error) {
	p, err := newPicture(tx.records)
	if err != nil {
		return nil, err
	}
	return p.identities, nil
}

func (tx *IdentityTx) get(at place, v any) error {
	plain := tx.records[at]
	if plain == nil {
		return fmt.Errorf("%s: %w", at, ErrNotFound)
	}
	return decode(at, plain, v)
}

func (tx *IdentityTx) put(at place, v any) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if string(tx.records[at]) == string(plain) {
		return nil // nothing to write
	}
	tx.records[at] = plain
	tx.changed[at] = true
	return nil
}

func identityPlace(clientID string) place {
	return place{identityBucket, strings.ToLower(clientID)}
}
