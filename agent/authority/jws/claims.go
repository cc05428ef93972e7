package jws

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Audience is an "aud" claim: one string or a list of them on the wire (RFC
// 7519 section 4.1.3). One is written as a string.
type Audience []string

// Contains reports whether one of the audiences equals s exactly.
func (a Audience) Contains(s string) bool { return slices.Contains(a, s) }

// UnmarshalJSON reads either form.
func (a *Audience) UnmarshalJSON(raw []byte) error {
	var one string
	if err := json.Unmarshal(raw, &one); err == nil && string(raw) != "null" {
		*a = Audience{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil || many == nil {
		return errors.New("aud is neither a string nor a list of strings")
	}
	*a = many
	return nil
}

// MarshalJSON writes one audience as a string, others as a list.
func (a Audience) MarshalJSON() ([]byte, error) {
	if len(a) == 1 {
		return json.Marshal(a[0])
	}
	return json.Marshal([]string(a))
}

// Time is a NumericDate claim (RFC 7519 section 2): seconds since 1970, whole
// when written, a fraction is allowed when read. The zero value is the zero
// time.Time, a claim that is not there; use it with `json:"exp,omitzero"`.
type Time struct{ time.Time }

// latest is the last second of the year 9999: beyond it there is no date to compare.
const latest = 253402300799

// UnmarshalJSON reads a number between 0 and the year 9999.
func (t *Time) UnmarshalJSON(raw []byte) error {
	n, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > latest {
		return errors.New("not a date in seconds")
	}
	whole, part := math.Modf(n)
	t.Time = time.Unix(int64(whole), int64(part*1e9)).UTC()
	return nil
}

// MarshalJSON writes whole seconds.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() || t.Unix() < 0 {
		return nil, fmt.Errorf("jws: %v is no date for a claim", t.Time)
	}
	return strconv.AppendInt(nil, t.Unix(), 10), nil
}
