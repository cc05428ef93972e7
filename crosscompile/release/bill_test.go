package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/crosscompile"
)

var moment = time.Date(2026, 9, 21, 14, 13, 20, 0, time.UTC)

// built is a real binary's bill, made once a test.
func built(t *testing.T, target crosscompile.Target) (*material, []byte) {
	t.Helper()
	stamp := crosscompile.Stamp{Version: "1.2.3", Commit: strings.Repeat("ab", 20), Time: moment}
	binary, err := crosscompile.Build(t.Context(), "../..", t.TempDir(), target, "", stamp.Extra()...)
	if err != nil {
		t.Fatal(err)
	}
	m, err := gather(t.Context(), "../..", binary, target)
	if err != nil {
		t.Fatal(err)
	}
	m.version, m.commit, m.time = stamp.Version, stamp.Commit, stamp.Time
	raw, err := m.bill()
	if err != nil {
		t.Fatal(err)
	}
	return m, raw
}

func TestBillsKeepTheOfficialSchemaAndNameEverythingLinked(t *testing.T) {
	for _, target := range []crosscompile.Target{{OS: "linux", Arch: "arm64"}, {OS: "windows", Arch: "amd64"}} {
		m, raw := built(t, target)
		for _, fault := range validate(t, raw) {
			t.Errorf("%s: %s", target, fault)
		}
		for _, want := range []string{
			`"purl": "pkg:golang/go.etcd.io/bbolt@`, `"purl": "pkg:golang/github.com/burntsushi/toml@`, `"purl": "pkg:golang/stdlib@1.`,
			`"scope": "excluded"`, `"timestamp": "2026-09-21T14:13:20Z"`, `"content": "` + m.digest, `"postern:go.sum"`, `"value": "h1:`,
		} {
			if !bytes.Contains(raw, []byte(want)) {
				t.Errorf("%s: the bill lacks %s", target, want)
			}
		}
		if again, err := m.bill(); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s: a second bill of the same binary differs: %v", target, err)
		}
		text := m.thirdParty()
		for _, x := range m.modules[1:] {
			if x.path != standard && !strings.Contains(text, x.path+" "+x.version) {
				t.Errorf("%s: the licence of %s is not handed on", target, x.path)
			}
		}
		if !strings.Contains(text, "Ben Johnson") || !strings.Contains(text, "Additional IP Rights Grant") {
			t.Errorf("%s: an author's name or the patent grant of Go is missing", target)
		}
		windows := bytes.Contains(raw, []byte("go-winio"))
		if windows != (target.OS == "windows") {
			t.Errorf("%s: go-winio in the bill: %v", target, windows)
		}
	}
}

// spoil changes one thing of a good bill.
func spoil(t *testing.T, raw []byte, change func(doc *bom)) []byte {
	t.Helper()
	var doc bom
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	change(&doc)
	out, err := doc.marshal()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWrongBillsAreRefused(t *testing.T) {
	m, raw := built(t, crosscompile.Target{OS: "linux", Arch: "arm64"})
	info := &buildinfo.BuildInfo{GoVersion: m.info.GoVersion, Deps: m.info.Deps}
	if faults := checkBill(raw, info); len(faults) > 0 {
		t.Fatalf("the good bill: %v", faults)
	}
	for name, change := range map[string]func(*bom){
		"serial number":       func(d *bom) { d.SerialNumber = "urn:uuid:00000000-0000-8000-8000-000000000000" },
		"missing":             func(d *bom) { d.Components = d.Components[1:] },
		"checksum":            func(d *bom) { d.Components[0].Properties[0].Value = "h1:other" },
		"twice":               func(d *bom) { d.Components[1].Ref = d.Components[0].Ref },
		"no licence":          func(d *bom) { d.Components[0].Licences = nil },
		"package URL":         func(d *bom) { d.Components[0].PURL, d.Components[0].Ref = "pkg:golang/X@v1", "pkg:golang/X@v1" },
		"depends on":          func(d *bom) { d.Dependencies[0].DependsOn = []string{"pkg:golang/nobody@v1"} },
		"what they depend on": func(d *bom) { d.Dependencies = d.Dependencies[1:] },
		"SHA-256":             func(d *bom) { d.Metadata.Component.Hashes = nil },
		"time":                func(d *bom) { d.Metadata.Timestamp = "yesterday" },
	} {
		var words []string
		for _, fault := range checkBill(spoil(t, raw, change), info) {
			words = append(words, fault.Error())
		}
		if !strings.Contains(strings.Join(words, "\n"), name) {
			t.Errorf("%s: not seen: %q", name, words)
		}
	}
}

// TestTheSchemaRefuses shows that the validator can fail.
func TestTheSchemaRefuses(t *testing.T) {
	_, raw := built(t, crosscompile.Target{OS: "linux", Arch: "arm64"})
	for name, change := range map[string]func(*bom){
		"a serial number that is none": func(d *bom) { d.SerialNumber = "7" },
		"another specification":        func(d *bom) { d.Format = "SPDX" },
		"an unknown licence":           func(d *bom) { d.Components[0].Licences[0].Licence.ID = "GPL-9.0" },
		"an unknown type":              func(d *bom) { d.Components[0].Type = "thing" },
		"a hash that is none":          func(d *bom) { d.Metadata.Component.Hashes[0].Content = "xyz" },
		"an unknown scope":             func(d *bom) { d.Components[0].Scope = "sometimes" },
		"the same component twice":     func(d *bom) { d.Components = append(d.Components, d.Components[0]) },
		"a time that is none":          func(d *bom) { d.Metadata.Timestamp = "2026-13-01T00:00:00Z" },
		"a version below one":          func(d *bom) { d.Version = 0 },
	} {
		if faults := validate(t, spoil(t, raw, change)); len(faults) == 0 {
			t.Errorf("%s: the schema finds nothing", name)
		}
	}
	if faults := validate(t, bytes.Replace(raw, []byte(`"components"`), []byte(`"things"`), 1)); len(faults) == 0 {
		t.Error("an unknown key: the schema finds nothing")
	}
}

const mit = `Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

func TestLicencesAreKnownByEveryWordButTheAuthors(t *testing.T) {
	apache, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"bare":             {mit, "MIT"},
		"with its author":  {"The MIT License (MIT)\n\nCopyright (c) 2013 Ben Johnson\n\n" + mit, "MIT"},
		"wrapped anew":     {strings.Join(strings.Fields(mit), "\n"), "MIT"},
		"one word more":    {strings.Replace(mit, "to any person", "to any private person", 1), ""},
		"one word less":    {strings.Replace(mit, "AS IS", "AS", 1), ""},
		"a clause more":    {mit + "\nThe Software shall be used for Good, not Evil.\n", ""},
		"hidden as author": {mit + "\nCopyright notices must be sung aloud.\n", ""},
		"empty":            {"", ""},
		"our own":          {string(apache), "Apache-2.0"},
		"Apache changed":   {strings.Replace(string(apache), "perpetual", "temporary", 1), ""},
		"Apache with more": {string(apache) + "\nNo commercial use.\n", ""},
		"Apache clause c":  {strings.Replace(string(apache), "(c) You must retain", "(c) You must sell", 1), ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "LICENSE.md"), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		ids, notices, err := readLicences(dir)
		switch {
		case test.want == "" && (err == nil || !strings.Contains(err.Error(), "fingerprint")):
			t.Errorf("%s: passes as %v, %v", name, ids, err)
		case test.want != "" && (err != nil || !slices.Equal(ids, []string{test.want}) || len(notices) != 1):
			t.Errorf("%s: is %v with %d notices, %v; want %s", name, ids, len(notices), err, test.want)
		}
	}
}
