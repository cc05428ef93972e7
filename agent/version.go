package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"postern/agent/verb"
)

// version is set by the release build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// commit is the revision that a release was built from; without it the
// toolchain's stamp serves.
var commit = ""

// buildTime is the commit's time in RFC 3339, set by the release build. It is
// the first lower bound of the clock; without it the toolchain's stamp serves.
var buildTime = ""

type versionDocument struct {
	Schema  string   `json:"schema"`
	Version string   `json:"version"`
	Commit  string   `json:"commit,omitempty"`
	Go      string   `json:"go"`
	OS      string   `json:"os"`
	Arch    string   `json:"arch"`
	Modules []string `json:"modules"`
}

func (c *cli) versionVerb() *verb.Command {
	long, example := manual("Show the version and what this binary was built from.", []string{"postern version", "postern version --json"}, "0")
	return &verb.Command{
		Use: "version", Short: "Show the version", Long: long, Example: example,
		RunE: func(*verb.Command, []string) error {
			doc := describeBuild()
			if c.json {
				return c.printJSON(doc)
			}
			from := ""
			if doc.Commit != "" {
				from = " (" + doc.Commit[:min(12, len(doc.Commit))] + ")"
			}
			c.print("postern %s%s %s/%s %s", doc.Version, from, doc.OS, doc.Arch, doc.Go)
			return nil
		},
	}
}

func describeBuild() versionDocument {
	doc := versionDocument{
		Schema: "postern.version/1", Version: version, Go: runtime.Version(),
		Commit: commit, OS: targetOS, Arch: runtime.GOARCH, Modules: []string{},
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return doc
	}
	for _, m := range info.Deps {
		doc.Modules = append(doc.Modules, fmt.Sprintf("%s %s", m.Path, m.Version))
	}
	if doc.Commit == "" {
		doc.Commit = buildSetting(info, "vcs.revision")
	}
	return doc
}

func buildSetting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// builtAt is a time before which this binary cannot run: the commit's time.
// Zero if the build carries none.
func builtAt() time.Time {
	stamp := buildTime
	if info, ok := debug.ReadBuildInfo(); ok && stamp == "" {
		stamp = buildSetting(info, "vcs.time")
	}
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return time.Time{}
	}
	return t
}
