package audit

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"postern/platform"
)

// firmware-notes/storage.md, the audit ring: exactly these fields, in this order.
func TestRecordIsTheDocumentedOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.Record(issued("https://vault.azure.net", "cache"))
		w.Record(Event{Name: StateChanged, Identity: "7b1e", Reason: "Connected to Offline"})
		got := w.lines()
		want := []string{
			`{"schema":"postern.audit/1","seq":1,"time":"2000-01-01T00:00:00Z","clock":"trusted","boot":"0f3c","event":"token-issued",` +
				`"reason":"grant 2","flavour":"arc","identity":"7b1e","resource":"https://vault.azure.net",` +
				`"caller":{"uid":1001,"user":"telemetry","listener":"127.0.0.1:40342","agent":"azsdk-python 1.19"},` +
				`"source":"cache","token":"9f2c41aa","expires":"2000-01-02T00:00:00Z","count":1,"prev":"` + strings.Repeat("0", 64) + `"}`,
			`{"schema":"postern.audit/1","seq":2,"time":"2000-01-01T00:00:00Z","clock":"trusted","boot":"0f3c","event":"state-changed",` +
				`"reason":"Connected to Offline","identity":"7b1e","count":1,"prev":"` + string(digestOf([]byte(got[0]))) + `"}`,
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("record %d\n got %s\nwant %s", i+1, got[i], want[i])
			}
		}
	})
}

func TestCallersAreNamedAsFarAsTheyAreKnown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Mode = "dev" })
		for _, c := range []struct{ peer, listener, want string }{
			{"uid:0", "control", `"caller":{"uid":0,"listener":"control"}`},
			{"", "127.0.0.1:40342", `"caller":{"listener":"127.0.0.1:40342"}`},
			{"workload:web", "workload:web", `"caller":{"peer":"workload:web","listener":"workload:web"}`},
			{"sid:S-1-5-18", "arc", `"caller":{"peer":"sid:S-1-5-18","listener":"arc"}`},
		} {
			w.Record(Event{Name: TokenDenied, Peer: platform.Peer(c.peer), Listener: c.listener})
			lines := w.lines()
			if last := lines[len(lines)-1]; !strings.Contains(last, c.want) || !strings.Contains(last, `"mode":"dev"`) {
				t.Errorf("%q: %s", c.peer, last)
			}
		}
	})
}

// firmware-notes/attack-surface.md, T30: no foreign string can forge a line, a field or a colour.
func TestT30ForeignStringsAreCutAndPrintable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		evil := "x\n\r\x1b[2J\u009b31m\u202e\",\"event\":\"token-issued\x00\xff<&>"
		w.Record(Event{
			Name: TokenDenied, Reason: evil, Flavour: evil, Identity: evil, Resource: evil, Peer: platform.Peer(evil),
			Listener: evil, Agent: evil + strings.Repeat("a", 1000), Source: evil, Token: evil,
		})
		after(time.Second)
		line := w.lines()[0]
		for _, s := range []string{line, strings.TrimSuffix(w.out.String(), "\n")} {
			if strings.ContainsAny(s, "\n\r\x00\x1b\u009b\u202e") || !json.Valid([]byte(line)) {
				t.Errorf("%q", s)
			}
		}
		r := w.records()[0]
		if r.Event != TokenDenied || len(r.Caller.Agent) > maxAgent+len("…") || !strings.HasSuffix(r.Reason, "<&>") {
			t.Errorf("%+v", r)
		}
	})
}

func TestLogLinesAreOneARecordAndNoneForWhatWasLogged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		defer stop()
		w.Record(issued("api://x", "fetched"))
		w.Record(issued("api://x", "cache")) // the normal case: debug level
		w.Record(Event{Name: Renewed, Identity: "7b1e", Logged: true})
		after(time.Second)
		out := w.out.String()
		if strings.Count(out, "\n") != 1 ||
			!strings.Contains(out, `msg="token issued" event=token-issued seq=1 identity=7b1e resource=api://x flavour=arc uid=1001 user=telemetry`) {
			t.Errorf("got %s", out)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("abc", 2)
	f.Add("\x9b\u202e\xff", 10)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = min(max(most, 0), 4096)
		got := clean(s, most)
		if len(got) > most+len("…") || strings.ContainsAny(got, "\n\r\x1b\u009b\u202e\x00") {
			t.Errorf("clean(%q, %d) = %q", s, most, got)
		}
	})
}
