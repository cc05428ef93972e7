package main

import (
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The part of CycloneDX 1.6 that a bill of ours uses, in the order in which it is written.
type (
	bom struct {
		Schema       string        `json:"$schema"`
		Format       string        `json:"bomFormat"`
		SpecVersion  string        `json:"specVersion"`
		SerialNumber string        `json:"serialNumber,omitempty"`
		Version      int           `json:"version"`
		Metadata     metadata      `json:"metadata"`
		Components   []component   `json:"components"`
		Dependencies []dependency  `json:"dependencies"`
		Compositions []composition `json:"compositions"`
	}
	metadata struct {
		Timestamp  string      `json:"timestamp"`
		Lifecycles []lifecycle `json:"lifecycles"`
		Tools      tools       `json:"tools"`
		Component  component   `json:"component"`
	}
	lifecycle struct {
		Phase string `json:"phase"`
	}
	tools struct {
		Components []component `json:"components"`
	}
	component struct {
		Type        string          `json:"type"`
		Ref         string          `json:"bom-ref,omitempty"`
		Name        string          `json:"name"`
		Version     string          `json:"version"`
		Description string          `json:"description,omitempty"`
		Scope       string          `json:"scope,omitempty"`
		Hashes      []hash          `json:"hashes,omitempty"`
		Licences    []licenceChoice `json:"licenses,omitempty"`
		CPE         string          `json:"cpe,omitempty"`
		PURL        string          `json:"purl,omitempty"`
		Properties  []property      `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	licenceChoice struct {
		Licence licence `json:"license"`
	}
	licence struct {
		ID              string `json:"id"`
		Acknowledgement string `json:"acknowledgement,omitempty"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
	composition struct {
		Aggregate    string   `json:"aggregate"`
		Dependencies []string `json:"dependencies"`
	}
)

var purl = regexp.MustCompile(`^pkg:(golang|generic)/[a-z0-9._~/%-]+@[A-Za-z0-9._~%-]+(\?[a-z]+=[a-z0-9]+(&[a-z]+=[a-z0-9]+)*)?$`)

// checkBill holds a bill against what the schema cannot say: everything that
// the binary names is there with version, checksum and licence, every
// reference leads somewhere, and the number is that of the content.
func checkBill(raw []byte, info *buildinfo.BuildInfo) []error {
	var doc bom
	if err := json.Unmarshal(raw, &doc); err != nil {
		return []error{err}
	}
	faults := checkHead(&doc)
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("bill: "+format, args...)) }
	refs, properties := map[string]bool{}, map[string]string{}
	for _, c := range append([]component{doc.Metadata.Component}, doc.Components...) {
		if refs[c.Ref] {
			fault("%s stands there twice", c.Ref)
		}
		refs[c.Ref] = true
		if c.Ref != c.PURL || !purl.MatchString(c.PURL) {
			fault("%s has the package URL %q", c.Name, c.PURL)
		}
		if c.Version == "" || len(c.Licences) == 0 {
			fault("%s has no version or no licence", c.Name)
		}
		for _, p := range c.Properties {
			properties[c.Name+" "+c.Version+" "+p.Name] = p.Value
		}
	}
	for _, d := range info.Deps {
		if d.Sum == "" || properties[d.Path+" "+d.Version+" postern:go.sum"] != d.Sum {
			fault("%s %s of the binary is missing or has another checksum", d.Path, d.Version)
		}
	}
	if want := len(info.Deps) + 2; len(doc.Components) != want { // the standard library and the toolchain
		fault("%d components, want %d", len(doc.Components), want)
	}
	from := map[string]bool{}
	for _, d := range doc.Dependencies {
		if !refs[d.Ref] || from[d.Ref] {
			fault("dependencies of %s are unknown or stand there twice", d.Ref)
		}
		from[d.Ref] = true
		for _, to := range d.DependsOn {
			if !refs[to] || to == d.Ref {
				fault("%s depends on %s", d.Ref, to)
			}
		}
	}
	if len(from) != len(refs) {
		fault("%d of %d components say what they depend on", len(from), len(refs))
	}
	return faults
}

func checkHead(doc *bom) (faults []error) {
	number := doc.SerialNumber
	doc.SerialNumber = ""
	plain, err := doc.marshal()
	if err != nil || serial(plain) != number {
		faults = append(faults, errors.New("bill: the serial number is not that of the content"))
	}
	if _, err := time.Parse(time.RFC3339, doc.Metadata.Timestamp); err != nil || !strings.HasSuffix(doc.Metadata.Timestamp, "Z") {
		faults = append(faults, fmt.Errorf("bill: the time %q is not one in UTC", doc.Metadata.Timestamp))
	}
	if c := doc.Metadata.Component; len(c.Hashes) != 1 || c.Hashes[0].Algorithm != "SHA-256" || len(c.Hashes[0].Content) != 64 {
		faults = append(faults, errors.New("bill: the binary has no SHA-256"))
	}
	return faults
}
