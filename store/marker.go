package store

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// marker is identity.json: it says that there is an identity, and how far it
// has come, so that an empty, missing or older database is noticed. It holds
// no secret.
type marker struct {
	Schema     string           `json:"schema"` // "postern.identity/1"
	State      string           `json:"state"`  // markerPresent or markerDestroying
	Generation uint64           `json:"generation"`
	Key        string           `json:"key"` // Key.ID
	Identities []markedIdentity `json:"identities"`
	Sum        string           `json:"sum"` // SHA-256 of the text without the sum
}

// markedIdentity names an identity and its keys by the SHA-256 of their public keys.
type markedIdentity struct {
	ClientID string   `json:"client_id"`
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Keys     []string `json:"keys"`
}

const (
	markerSchema     = "postern.identity/1"
	markerProduct    = "postern.identity/"
	markerPresent    = "present"
	markerDestroying = "destroying" // Destroy has begun, and whoever reads this finishes it
	markerLimit      = 256 << 10
)

// encode returns the file's text, with its sum.
func (m marker) encode() ([]byte, error) {
	m.Schema, m.Sum = markerSchema, ""
	plain, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(plain, '\n'))
	m.Sum = hex.EncodeToString(sum[:])
	plain, err = json.MarshalIndent(m, "", "  ")
	return append(plain, '\n'), err
}

// decodeMarker reads a marker. Errors wrap ErrDamaged or ErrNewer.
func decodeMarker(text []byte) (marker, error) {
	var m marker
	if err := json.Unmarshal(text, &m); err != nil || !sumCovers(text, m.Sum) {
		return marker{}, ErrDamaged
	}
	if len(m.Schema) <= len(markerProduct) || m.Schema[:len(markerProduct)] != markerProduct {
		return marker{}, ErrForeign
	}
	if m.Schema != markerSchema {
		return marker{}, fmt.Errorf("%s, this release reads %s: %w", m.Schema, markerSchema, ErrNewer)
	}
	if m.State != markerPresent && m.State != markerDestroying {
		return marker{}, ErrDamaged
	}
	return m, nil
}

// readMarker returns the marker at path; nil without an error if there is none.
func readMarker(path string, o Options) (*marker, error) {
	if err := notRegular(path); err != nil {
		return nil, err
	}
	text, err := readWhole(o, path, markerLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no marker is an answer
	}
	if err != nil {
		return nil, err
	}
	m, err := decodeMarker(text)
	if err != nil {
		return nil, fmt.Errorf("marker %s: %w", path, err)
	}
	return &m, nil
}

// mark lists what the marker says of the identities.
func mark(identities []IdentityRecord) []markedIdentity {
	list := make([]markedIdentity, 0, len(identities))
	for _, id := range identities {
		m := markedIdentity{ClientID: id.ClientID, Name: id.Name, Kind: id.Kind, Keys: []string{}}
		for _, k := range []*KeyRecord{id.Current, id.Previous, id.Pending} {
			if f := fingerprint(k); f != "" && !slices.Contains(m.Keys, f) {
				m.Keys = append(m.Keys, f)
			}
		}
		list = append(list, m)
	}
	return list
}

// fingerprint is the hex SHA-256 of the public key (SubjectPublicKeyInfo), from
// the certificate if there is one; empty if it cannot be told.
func fingerprint(k *KeyRecord) string {
	if k == nil {
		return ""
	}
	if len(k.Chain) > 0 {
		if leaf, err := x509.ParseCertificate(k.Chain[0]); err == nil {
			return hexSum(leaf.RawSubjectPublicKeyInfo)
		}
	}
	signer, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
	if err != nil {
		return ""
	}
	public, ok := signer.(interface{ Public() crypto.PublicKey })
	if !ok {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(public.Public())
	if err != nil {
		return ""
	}
	return hexSum(der)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
