package endpoint

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// -update writes the answers into the transcripts: look at the difference.
var update = flag.Bool("update", false, "write testdata/*.txt anew")

var (
	dateLine    = regexp.MustCompile(`(?m)^Date: [A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$`)
	challenge36 = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.key`)
	correlation = regexp.MustCompile(`"correlation_id":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"`)
)

// TestTranscripts plays each testdata/FLAVOUR-*.txt on a raw socket and compares
// every byte of the answers. A transcript is a list of blocks: "broker NAME"
// sets what the Broker says (a row of the error tables, or "token"), ">>>" is
// sent, "<<<" is expected. {PORT}, {KEY} (the newest challenge), {UUID}, {DATE}
// and {GUID} stand for what differs.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 4 {
		t.Fatalf("transcripts: %q, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { playTranscript(t, file) })
	}
}

func playTranscript(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flavour, _, _ := strings.Cut(filepath.Base(file), "-")
	r := newRig(t, Flavour(flavour), func(o *Options) { o.Instance = board })
	l := r.dial()
	var out strings.Builder
	key, sent := "", ""
	for i, block := range strings.Split(string(content), "\n---\n") {
		block = strings.TrimSuffix(block, "\n")
		if i > 0 {
			out.WriteString("\n---\n")
		}
		switch {
		case strings.HasPrefix(block, "broker "):
			r.stub.answer(nil)
			if name := strings.TrimPrefix(block, "broker "); name != "token" {
				r.stub.fail(rowNamed(t, name).err)
			}
			out.WriteString(block)
		case strings.HasPrefix(block, ">>>\n"):
			sent = strings.NewReplacer("{PORT}", r.port(), "{KEY}", key).Replace(strings.TrimPrefix(block, ">>>\n"))
			out.WriteString(block)
		case strings.HasPrefix(block, "<<<"):
			method, _, _ := strings.Cut(sent, " ")
			rep := l.ask(method, strings.ReplaceAll(sent, "\n", "\r\n")+"\r\n\r\n")
			if rep.Header.Get("Www-Authenticate") != "" {
				key = r.key(rep)
			}
			if rep.Close {
				l = r.dial()
			}
			out.WriteString("<<<\n" + normal(t, rep))
		default:
			out.WriteString(block)
		}
	}
	got := out.String() + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(content) {
		t.Errorf("transcript differs\n--- got\n%s\n--- want\n%s", got, content)
	}
}

// normal is an answer with LF line ends and without what differs each time.
func normal(t *testing.T, rep reply) string {
	t.Helper()
	text := strings.ReplaceAll(rep.raw, "\r\n", "\n")
	if strings.Contains(text, "\r") || strings.Count(text, "\n") != strings.Count(rep.raw, "\r\n") {
		t.Errorf("line ends: %q", rep.raw)
	}
	text = dateLine.ReplaceAllString(text, "Date: {DATE}")
	text = challenge36.ReplaceAllString(text, "{UUID}.key")
	return text + correlation.ReplaceAllString(rep.body, `"correlation_id":"{GUID}"`)
}

func rowNamed(t *testing.T, name string) row {
	t.Helper()
	for _, rows := range [][]row{stateRows(), classRows(), requestRows()} {
		for _, r := range rows {
			if r.name == name {
				return r
			}
		}
	}
	t.Fatalf("no row is called %q", name)
	return row{}
}
