package token

import (
	"strings"
	"testing"
	"unicode/utf8"

	"postern/platform"
)

func TestWhoForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want who
		bad  string // part of the error; empty if it parses
	}{
		{text: "uid:0", want: who{kind: whoPeer, peer: "uid:0"}},
		{text: "uid:1001", want: who{kind: whoPeer, peer: "uid:1001"}},
		{text: "uid:4294967294", want: who{kind: whoPeer, peer: "uid:4294967294"}},
		{text: "sid:S-1-5-21-1-2-3-1001", want: who{kind: whoPeer, peer: "sid:S-1-5-21-1-2-3-1001"}},
		{text: "workload:web", want: who{kind: whoPeer, peer: "workload:web"}},
		{text: "user:telemetry", want: who{kind: whoUser, name: "telemetry"}},
		{text: `user:PLANT\telemetry`, want: who{kind: whoUser, name: `PLANT\telemetry`}},
		{text: "group:Hybrid agent extension applications", want: who{kind: whoGroup, name: "Hybrid agent extension applications"}},
		{text: "listener:127.0.0.1:40342", want: who{kind: whoListener, name: "127.0.0.1:40342"}},
		{text: "listener:workload:web", want: who{kind: whoListener, name: "workload:web"}},

		{text: "", bad: "want"},
		{text: "1001", bad: "want"},
		{text: "uid", bad: "want"},
		{text: "uid:", bad: "empty"},
		{text: "uid:-1", bad: "0 to 4294967294"},
		{text: "uid:+1", bad: "0 to 4294967294"},
		{text: "uid:01", bad: "0 to 4294967294"},
		{text: "uid:4294967295", bad: "0 to 4294967294"},
		{text: "uid:4294968297", bad: "0 to 4294967294"}, // 1001 in 32 bits
		{text: "uid:1e3", bad: "0 to 4294967294"},
		{text: "uid:root", bad: "0 to 4294967294"},
		{text: "sid:1001", bad: "S-1-"},
		{text: "user:", bad: "empty"},
		{text: "user: telemetry", bad: "space"},
		{text: "user:a\x00b", bad: "printed"},
		{text: "user:a\nb", bad: "printed"},
		{text: "user:\u202eb", bad: "printed"},
		{text: "user:\xff", bad: "printed"},
		{text: "user:" + strings.Repeat("a", 257), bad: "longer"},
		{text: "User:telemetry", bad: "no form"},
		{text: "*:x", bad: "no form"},
		{text: "unknown:x", bad: "no form"},
	} {
		got, err := parseWho(c.text)
		switch {
		case c.bad == "" && (err != nil || got != c.want):
			t.Errorf("parseWho(%q) = %+v, %v; want %+v", c.text, got, err, c.want)
		case c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)):
			t.Errorf("parseWho(%q) = %+v, %v; want an error with %q", c.text, got, err, c.bad)
		}
	}
}

// A grant for nobody in particular must not come out of a strange spelling.
func FuzzParseWho(f *testing.F) {
	for _, seed := range []string{"uid:1001", "user:a", "group:b", "listener:127.0.0.1:1", "sid:S-1-5-18", "workload:w", ":", "uid:\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parseWho(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b\u009b") || !utf8.ValidString(err.Error()) {
				t.Errorf("the error repeats control characters: %q", err)
			}
			return
		}
		if w.kind == whoPeer && (w.peer == platform.Unknown || string(w.peer) != text) {
			t.Errorf("parseWho(%q) means the peer %q", text, w.peer)
		}
		if w.kind != whoPeer && w.name == "" {
			t.Errorf("parseWho(%q) has no name", text)
		}
	})
}
