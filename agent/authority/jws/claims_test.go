package jws

import (
	"encoding/json"
	"testing"
	"time"
)

func TestAudienceIsOneOrMany(t *testing.T) {
	for in, want := range map[string][]string{
		`"a"`: {"a"}, `["a"]`: {"a"}, `["a","b"]`: {"a", "b"}, `[]`: {}, `""`: {""},
	} {
		var a Audience
		if err := json.Unmarshal([]byte(in), &a); err != nil || len(a) != len(want) {
			t.Errorf("%s: got %v, %v", in, a, err)
			continue
		}
		for i := range want {
			if a[i] != want[i] || !a.Contains(want[i]) {
				t.Errorf("%s: got %v", in, a)
			}
		}
		if a.Contains("c") {
			t.Errorf("%s contains c", in)
		}
	}
	for _, in := range []string{`1`, `{"a":1}`, `[1]`, `true`, `["a",["b"]]`} {
		var a Audience
		if err := json.Unmarshal([]byte(in), &a); err == nil {
			t.Errorf("%s was taken as %v", in, a)
		}
	}
	for want, a := range map[string]Audience{`"a"`: {"a"}, `["a","b"]`: {"a", "b"}, `null`: nil} {
		if got, err := json.Marshal(a); err != nil || string(got) != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
}

func TestDatesAreWholeOrBrokenSeconds(t *testing.T) {
	for in, want := range map[string]time.Time{
		`1300819380`:   time.Unix(1300819380, 0),
		`1300819380.5`: time.Unix(1300819380, 5e8),
		`1.3e9`:        time.Unix(1300000000, 0),
		`0`:            time.Unix(0, 0),
		`253402300799`: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		var d Time
		if err := json.Unmarshal([]byte(in), &d); err != nil || !d.Equal(want) {
			t.Errorf("%s: got %v, %v; want %v", in, d, err, want)
		}
	}
	for _, in := range []string{`"1300819380"`, `-1`, `1e300`, `253402300800`, `true`, `[]`, `{}`, `null`} {
		var d Time
		if err := json.Unmarshal([]byte(in), &d); err == nil {
			t.Errorf("%s was taken as %v", in, d)
		}
	}
	got, err := json.Marshal(struct {
		A Time `json:"a"`
		B Time `json:"b,omitzero"`
	}{A: Time{time.Unix(7, 9e8)}})
	if err != nil || string(got) != `{"a":7}` {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := json.Marshal(Time{}); err == nil {
		t.Errorf("the zero time was written as %s", got)
	}
}

func TestCheckObject(t *testing.T) {
	for _, in := range []string{`{}`, ` {"a":{"b":[1,{"c":null}]},"b":true} `} {
		if err := CheckObject([]byte(in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []string{``, `null`, `[]`, `{`, `{"a"}`, `{"a":1,}`, `{"a":1,"A":1}`, `{} {}`, "{\"\xff\":1}", `{"a":[}`, `{"a":{"b":1}`} {
		if err := CheckObject([]byte(in)); err == nil {
			t.Errorf("%s was taken", in)
		}
	}
}
