package main

import (
	"fmt"
	"strings"
	"time"

	"postern/agent/control"
	"postern/agent/endpoint"
)

// readyLine is the first line of dev --json.
type readyLine struct {
	Ready      bool          `json:"ready"`
	Endpoint   string        `json:"endpoint"` // of the Arc flavour; empty if it is not served
	IMDS       string        `json:"imds"`
	AppService string        `json:"app_service"`
	StateDir   string        `json:"state_dir"`
	Identities []devIdentity `json:"identities"`
}

type devIdentity struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	ClientID   string `json:"client_id"`
	ObjectID   string `json:"object_id"`
	ResourceID string `json:"resource_id"`
}

// ready says where to ask, in JSON or as a transcript that can be pasted.
func (d *developer) ready(g *graph) {
	st := g.Status()
	line := readyLine{Ready: true, StateDir: g.host.Dirs().State, Identities: []devIdentity{}}
	if len(g.serving.Arc) > 0 {
		line.Endpoint = "http://" + g.serving.Arc[0]
	}
	if len(g.serving.IMDS) > 0 {
		line.IMDS = "http://" + g.serving.IMDS[0]
	}
	line.AppService = "http://" + d.memory.AppService + "/msi/token"
	for _, id := range st.Identities {
		line.Identities = append(line.Identities, devIdentity{
			Kind: id.Kind, Name: id.Name, ClientID: id.ClientID, ObjectID: id.ObjectID, ResourceID: id.ResourceID,
		})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cli.json {
		_ = d.cli.printJSON(line)
		for _, note := range d.notes {
			d.cli.say("note: %s", note)
		}
		return
	}
	for _, text := range d.transcript(line, st) {
		d.cli.print("%s", text)
	}
}

func (d *developer) transcript(line readyLine, st control.Status) []string {
	page := []string{
		"", fmt.Sprintf("%s — %s, a trial on loopback. Keys and tokens are kept in %s", st.Name, st.State, line.StateDir), "",
	}
	for _, id := range line.Identities {
		page = append(page, fmt.Sprintf("  %-15s %-12s client_id=%s", id.Kind, id.Name, id.ClientID))
	}
	page = append(page, "", "# any Azure SDK in this shell (App Service flavour: no files, no rights):",
		"export IDENTITY_ENDPOINT="+line.AppService,
		"export IDENTITY_HEADER="+d.memory.Secret,
		"", "# or by hand (IMDS flavour):",
		"curl -s -H Metadata:true '"+line.IMDS+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'",
		"", "# JavaScript, .NET, Java, C++ and newer Python also take the IMDS flavour:",
		"export AZURE_POD_IDENTITY_AUTHORITY_HOST="+line.IMDS)
	if line.Endpoint != "" {
		page = append(page, "", "# as on an Azure Arc server (root, and members of the group "+d.cfg.Group+"):",
			arcEnv(strings.TrimPrefix(line.Endpoint, "http://")).shell())
	}
	for _, note := range d.notes {
		page = append(page, "# note: "+note)
	}
	return append(page, "", "# and to look inside:",
		d.cli.complete("postern status"),
		"# Ctrl-C stops; everything is kept. Start again with --offline to see it work without the authority.", "")
}

func orWord(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// requestLine is one served request of dev --json.
type requestLine struct {
	Schema   string    `json:"schema"` // "postern.request/1"
	Time     time.Time `json:"time"`
	Flavour  string    `json:"flavour"`
	Listener string    `json:"listener"`
	Peer     string    `json:"peer"`
	Agent    string    `json:"agent,omitempty"`
	Method   string    `json:"method"`
	Status   int       `json:"status"`
	Resource string    `json:"resource,omitempty"`
	ClientID string    `json:"client_id,omitempty"`
	Error    string    `json:"error,omitempty"`
	Note     string    `json:"note,omitempty"` // "cache", "fetched", "challenge"
}

func requestOf(s endpoint.Served) requestLine {
	return requestLine{
		Schema: "postern.request/1", Time: s.Time.UTC(), Flavour: string(s.Flavour), Listener: s.Listener, Peer: s.Peer.String(), Agent: s.Agent,
		Method: s.Method, Status: s.Status, Resource: s.Resource, ClientID: s.ClientID, Error: s.Error, Note: s.Note,
	}
}

// servedLine is one request as a person reads it.
func servedLine(s endpoint.Served) string {
	return fmt.Sprintf("%s  %s  %s  %d  %s  %s", s.Time.Format(time.TimeOnly), s.Flavour, s.Peer, s.Status, s.Resource, s.Note)
}
