package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"postern/crosscompile"
)

// material is what a bill is written from: the binary as it lies there, what
// it says of itself, and what go list says of its sources.
type material struct {
	target  crosscompile.Target
	version string
	commit  string
	time    time.Time
	digest  string // SHA-256 of the binary
	info    *buildinfo.BuildInfo
	modules []*module // the main module first
}

// gather reads the binary at path. It is an error when the binary was made
// from other modules than the sources at root name.
func gather(ctx context.Context, root, path string, t crosscompile.Target) (*material, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	m := &material{target: t, digest: hex.EncodeToString(sum[:])}
	if m.info, err = buildinfo.Read(bytes.NewReader(raw)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if m.modules, err = linked(ctx, root, t); err != nil {
		return nil, err
	}
	built := map[string]bool{}
	for _, d := range m.info.Deps {
		if d.Replace != nil {
			return nil, fmt.Errorf("%s: %s is replaced by %s; a release takes modules as they were published", path, d.Path, d.Replace.Path)
		}
		built[d.Path] = true
		i := slices.IndexFunc(m.modules, func(x *module) bool { return x.path == d.Path && x.version == d.Version })
		if i < 0 || d.Sum == "" {
			return nil, fmt.Errorf("%s: %s %s is in the binary, but not in the sources or without a checksum", path, d.Path, d.Version)
		}
		m.modules[i].sum = d.Sum
	}
	for i, x := range m.modules {
		switch {
		case x.path == standard:
			x.version = strings.TrimPrefix(m.info.GoVersion, "go")
			err = x.readStandard(ctx, root)
		case i > 0 && !built[x.path]:
			err = fmt.Errorf("%s: %s is in the sources, but not in the binary", path, x.path)
		}
		if err == nil && len(x.licences) == 0 {
			err = fmt.Errorf("%s: %w: there is no licence file", x.path, errLicence)
		}
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// thirdParty is the text of all licences and notices that must be handed on.
func (m *material) thirdParty() string {
	var out strings.Builder
	out.WriteString("Postern is made with the following works of others. Their licences ask that these texts are handed on.\n")
	for _, x := range m.modules[1:] {
		name := x.path + " " + x.version
		if x.path == standard {
			name = "the Go standard library and runtime " + x.version
		}
		fmt.Fprintf(&out, "\n%s\n%s (%s)\n", strings.Repeat("=", 80), name, strings.Join(x.licences, ", "))
		for _, n := range x.notices {
			fmt.Fprintf(&out, "%s\n%s: %s\n\n%s\n", strings.Repeat("-", 80), name, n.name, strings.TrimSpace(n.text))
		}
	}
	return out.String()
}

// bill writes the software bill of materials, CycloneDX 1.6 in JSON. The same
// material gives the same bytes.
func (m *material) bill() ([]byte, error) {
	doc := bom{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{
			Timestamp:  m.time.UTC().Format(time.RFC3339),
			Lifecycles: []lifecycle{{Phase: "post-build"}},
			Tools:      tools{[]component{{Type: "application", Name: "postern crosscompile/release", Version: m.version}}},
			Component:  m.ours(),
		},
	}
	for _, x := range m.modules[1:] {
		doc.Components = append(doc.Components, m.theirs(x))
	}
	doc.Components = append(doc.Components, m.toolchain())
	for _, x := range m.modules {
		refs := []string{}
		for _, path := range x.needs {
			i := slices.IndexFunc(m.modules, func(y *module) bool { return y.path == path })
			refs = append(refs, m.ref(m.modules[i]))
		}
		doc.Dependencies = append(doc.Dependencies, dependency{Ref: m.ref(x), DependsOn: refs})
	}
	doc.Dependencies = append(doc.Dependencies, dependency{Ref: m.toolchain().Ref, DependsOn: []string{}})
	doc.Compositions = []composition{{Aggregate: "complete", Dependencies: []string{m.ref(m.modules[0])}}}
	raw, err := doc.marshal()
	if err != nil {
		return nil, err
	}
	doc.SerialNumber = serial(raw)
	if raw, err = doc.marshal(); err != nil {
		return nil, err
	}
	return raw, errors.Join(checkBill(raw, m.info)...)
}

// ours is Postern itself, as one binary.
func (m *material) ours() component {
	x := m.modules[0]
	c := component{
		Type: "application", Ref: m.ref(x), Name: "postern", Version: m.version, PURL: m.ref(x),
		Hashes: []hash{{"SHA-256", m.digest}}, Licences: licenceChoices(x.licences),
	}
	for _, p := range []property{{"postern:commit", m.commit}, {"postern:target", m.target.String()}, {"postern:go", m.info.GoVersion}} {
		if p.Value != "" {
			c.Properties = append(c.Properties, p)
		}
	}
	for _, s := range m.info.Settings {
		if !strings.HasPrefix(s.Key, "vcs") && s.Key != "DefaultGODEBUG" {
			c.Properties = append(c.Properties, property{"postern:build:" + s.Key, s.Value})
		}
	}
	return c
}

func (m *material) theirs(x *module) component {
	c := component{
		Type: "library", Ref: m.ref(x), Name: x.path, Version: x.version, Scope: "required",
		PURL: m.ref(x), Licences: licenceChoices(x.licences),
	}
	if x.path == standard {
		c.Name, c.CPE = "stdlib", "cpe:2.3:a:golang:go:"+x.version+":-:*:*:*:*:*:*"
		c.Description = "the Go standard library and runtime, " + fmt.Sprint(len(x.packages)) + " packages"
		return c
	}
	c.Properties = []property{{"postern:go.sum", x.sum}, {"postern:packages", strings.Join(x.packages, " ")}}
	return c
}

// toolchain is the compiler and linker, which are not in the binary.
func (m *material) toolchain() component {
	version := strings.TrimPrefix(m.info.GoVersion, "go")
	std := m.modules[slices.IndexFunc(m.modules, func(x *module) bool { return x.path == standard })]
	return component{
		Type: "application", Ref: "pkg:generic/go@" + version, Name: "go", Version: version, Scope: "excluded",
		Description: "the toolchain that built the binary", PURL: "pkg:generic/go@" + version, Licences: licenceChoices(std.licences),
	}
}

// ref is the package URL of a module, which names it in the whole document.
// The Go type is written in lower case; the standard library goes by the name
// under which scanners look for it.
func (m *material) ref(x *module) string {
	escape := strings.NewReplacer("+", "%2B", "!", "%21")
	switch {
	case x == m.modules[0]:
		return "pkg:generic/postern@" + escape.Replace(m.version) + "?arch=" + m.target.Arch + "&os=" + m.target.OS
	case x.path == standard:
		return "pkg:golang/stdlib@" + x.version
	}
	return "pkg:golang/" + strings.ToLower(x.path) + "@" + escape.Replace(x.version)
}

func licenceChoices(ids []string) []licenceChoice {
	var list []licenceChoice
	for _, id := range ids {
		list = append(list, licenceChoice{licence{ID: id, Acknowledgement: "declared"}})
	}
	return list
}

// marshal writes indented JSON without escaping for HTML.
func (b *bom) marshal() ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(b); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// serial makes a UUID of version 8 (RFC 9562, section 5.8) out of the
// document, so that the same document always has the same number.
func serial(content []byte) string {
	sum := sha256.Sum256(content)
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
