package control

import (
	"context"
	"net/http"
	"time"

	"postern/platform"
)

// Probe is what one harmless call to the authority showed, made by whoever
// holds the device's roots and proxy. Absent means unknown.
type Probe struct {
	URL    string    `json:"url"`
	Proxy  string    `json:"proxy,omitempty"`   // host and port of the proxy that was used
	Stage  string    `json:"stage,omitempty"`   // where the call broke: "connect", "proxy", "tls", "answer"; empty if it did not
	Reason string    `json:"reason,omitempty"`  // why, in one sentence
	Skew   int64     `json:"skew_s,omitempty"`  // authority time minus ours
	Dated  bool      `json:"dated,omitempty"`   // the authority said what time it has
	Took   int64     `json:"took_ms,omitempty"` // until the answer
	Done   bool      `json:"done"`              // there is an authority and it was asked
	Error  string    `json:"error,omitempty"`   // why it could not be asked at all
	Fix    string    `json:"fix,omitempty"`     // one command for Error
	At     time.Time `json:"at,omitzero"`
}

// Probe asks the running agent to call its authority once.
func (c *Client) Probe(ctx context.Context) (Probe, error) {
	var p Probe
	return p, c.post(ctx, "/v1/probe", struct{}{}, &p)
}

func (s *Server) probe(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	return writeJSON(w, s.agent.Probe(ctx))
}
