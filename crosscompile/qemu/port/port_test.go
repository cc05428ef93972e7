package port

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const hello = `{"k":"hello","v":1,"job":"j"}` + "\n"

func TestStrictReaderBelievesOnlyWhatFits(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		ok    bool
	}{
		"a run":              {hello + `{"k":"out","s":1,"t":"x"}` + "\n" + `{"k":"exit","rc":3}` + "\n", true},
		"init and its story": {hello + hello + `{"k":"exit"}` + "\n", true},
		"no exit":            {hello, true}, // the caller misses it
		"nothing":            {"", true},
		"another job":        {`{"k":"hello","v":1,"job":"k"}` + "\n", false},
		"another version":    {`{"k":"hello","v":2,"job":"j"}` + "\n", false},
		"exit without hello": {`{"k":"exit"}` + "\n", false},
		"words after exit":   {hello + `{"k":"exit"}` + "\n" + `{"k":"exit"}` + "\n", false},
		"unknown kind":       {hello + `{"k":"pass"}` + "\n", false},
		"unknown field":      {hello + `{"k":"exit","status":0}` + "\n", false},
		"two values":         {hello + `{"k":"exit"}{"k":"exit"}` + "\n", false},
		"no JSON":            {hello + "ok\n", false},
		"cut off":            {hello + `{"k":"ex`, false},
		"endless line":       {hello + `{"k":"out","t":"` + strings.Repeat("x", 2*MaxFile) + `"}`, false},
	} {
		err := Read(strings.NewReader(c.lines), "j", func(Message) {})
		if (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrProtocol)) {
			t.Errorf("%s: %v, want accepted %v", name, err, c.ok)
		}
	}
}

func TestWhatIsSaidIsHeard(t *testing.T) {
	var line bytes.Buffer
	w := NewWriter(&line)
	file := bytes.Repeat([]byte{0, 255, '\n'}, MaxFile/3)
	said := []Message{
		{Kind: Hello, V: Version, Job: "j"},
		{Kind: Out, S: 2, T: strings.Repeat("\x01é", MaxLine)},
		{Kind: File, Name: "/f", B64: file},
		{Kind: Exit, RC: 7, Signal: "killed"},
	}
	for _, m := range said {
		if err := w.Say(m); err != nil {
			t.Fatal(err)
		}
	}
	var heard []Message
	if err := Read(&line, "j", func(m Message) { heard = append(heard, m) }); err != nil {
		t.Fatal(err)
	}
	if len(heard) != 4 || !heard[1].Cut || len(heard[1].T) < MaxLine/2 || !bytes.Equal(heard[2].B64, file) || heard[3].RC != 7 {
		t.Errorf("heard %d messages, the second is cut: %v", len(heard), heard[1].Cut)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(hello + `{"k":"step","name":"a","ok":true}` + "\n")
	f.Fuzz(func(t *testing.T, lines string) {
		greeted := false
		_ = Read(strings.NewReader(lines), "j", func(m Message) {
			if m.Kind == Hello && m.Job != "j" {
				t.Errorf("the job %q was believed", m.Job)
			}
			greeted = greeted || m.Kind == Hello
			if !greeted {
				t.Errorf("%s before hello", m.Kind)
			}
		})
	})
}
