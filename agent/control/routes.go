package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"postern/agent/lifecycle"
	"postern/agent/token"
	"postern/platform"
)

// hostName is the only Host that the socket answers to: a second line against
// programs that can be talked into connecting somewhere.
const hostName = "postern"

// rank says what a caller may do.
type rank uint8

const (
	anyone rank = iota
	reader
	administrator
)

func (s *Server) rankOf(p platform.Peer) rank {
	switch {
	case p == platform.Unknown:
		return anyone
	case s.host.Administrator(p):
		return administrator
	case s.host.Member(p, s.group):
		return reader
	}
	return anyone
}

type call func(w http.ResponseWriter, r *http.Request, peer platform.Peer) error

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, route := range []struct {
		pattern string
		least   rank
		call    call
	}{
		{"GET /v1/status", anyone, s.status},
		{"GET /v1/wait", anyone, s.wait},
		{"POST /v1/token", reader, s.token},
		{"GET /v1/audit", administrator, s.audit},
		{"POST /v1/workload", administrator, s.workload},
		{"POST /v1/probe", administrator, s.probe},
		{"POST /v1/connect", administrator, s.connect},
		{"POST /v1/disconnect", administrator, s.disconnect},
		{"POST /v1/renew", administrator, s.renew},
		{"POST /v1/adopt", administrator, s.adopt},
		{"POST /v1/reset", administrator, s.reset},
	} {
		mux.HandleFunc(route.pattern, s.guard(route.least, route.call))
	}
	return mux
}

// guard refuses browsers and callers of too low a rank before anything is read.
func (s *Server) guard(least rank, c call) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Host != hostName || r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" {
			http.Error(w, "not for browsers", http.StatusForbidden)
			return
		}
		peer, _ := r.Context().Value(peerKey{}).(platform.Peer)
		if s.rankOf(peer) < least {
			writeFault(w, s.refusal(peer, least))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxOnboarding)
		if err := c(w, r, peer); err != nil {
			writeFault(w, AsFault(err))
		}
	}
}

// The ids of a refusal by rank.
const (
	notReader        = "not-a-reader"
	notAdministrator = "not-an-administrator"
)

func (s *Server) refusal(peer platform.Peer, least rank) *Fault {
	if least == reader {
		name := s.host.UserName(peer)
		if name == "" {
			name = "USER"
		}
		fix := "sudo usermod -aG " + s.group + " " + name + "   # then log in again"
		if peer == platform.Unknown { // no group makes it known
			fix = AgainWithSudo
		}
		return NewFault(ExitPermission, notReader, fix, "%s is not a member of the group %s", peer, s.group)
	}
	return NewFault(ExitPermission, notAdministrator, AgainWithSudo,
		"%s may not administer the agent", peer)
}

func writeFault(w http.ResponseWriter, f *Fault) {
	f.Chain = CauseChain(f)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_ = json.NewEncoder(w).Encode(f)
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

func readJSON(r *http.Request, limit int64, into any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, limit))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		_, _ = io.Copy(io.Discard, r.Body) // bounded by guard; who still writes would miss the answer
		return NewFault(ExitUsage, "bad-request", "postern version   # the same must run on both ends",
			"the request could not be read: %w", err)
	}
	return nil
}

func (s *Server) visible(peer platform.Peer) Status {
	st := s.agent.Status()
	if s.rankOf(peer) < administrator {
		return st.Public()
	}
	return st
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request, peer platform.Peer) error {
	return writeJSON(w, s.visible(peer))
}

// wait answers when the state is one of those asked for, at the latest when
// the caller's time is over; it then answers with the state that is.
func (s *Server) wait(w http.ResponseWriter, r *http.Request, peer platform.Peer) error {
	var want []lifecycle.State
	for _, name := range r.URL.Query()["for"] {
		var st lifecycle.State
		if err := st.UnmarshalText([]byte(name)); err != nil {
			return NewFault(ExitUsage, "unknown-state", "postern wait --help", "%w", err)
		}
		want = append(want, st)
	}
	limit, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || limit <= 0 || limit > callTimeout {
		limit = callTimeout
	}
	deadline := time.After(limit)
	poll := time.NewTicker(200 * time.Millisecond) // only while somebody waits
	defer poll.Stop()
	for !slices.Contains(want, s.agent.Status().State) {
		select {
		case <-poll.C:
			continue
		case <-deadline:
		case <-r.Context().Done():
		}
		break
	}
	return writeJSON(w, s.visible(peer))
}

func (s *Server) token(w http.ResponseWriter, r *http.Request, peer platform.Peer) error {
	var req TokenRequest
	if err := readJSON(r, maxRequest, &req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	answer, err := s.agent.Token(ctx, req, token.Caller{Peer: peer, Listener: "control", Agent: "postern"})
	if err != nil {
		return err
	}
	return writeJSON(w, answer)
}

func (s *Server) workload(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	var req WorkloadRequest
	if err := readJSON(r, maxRequest, &req); err != nil {
		return err
	}
	pair, err := s.agent.Workload(req.Name, req.Rotate)
	if err != nil {
		return err
	}
	return writeJSON(w, pair)
}

func (s *Server) audit(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	from, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		from = 0
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	err = s.agent.Audit(r.Context(), from, r.URL.Query().Has("follow"), func(line []byte) error {
		if _, werr := w.Write(append(line, '\n')); werr != nil { //nolint:gosec // JSON lines on the control socket; no browser reads them
			return werr
		}
		return flush.Flush()
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// progress streams one line a step, then the end.
func (s *Server) progress(w http.ResponseWriter, do func(step func(string)) error) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	err := do(func(line string) {
		_ = enc.Encode(Progress{Step: line}) // a caller that went away does not stop the work
		_ = flush.Flush()
	})
	end := Progress{Done: err == nil, Fault: AsFault(err)}
	if end.Fault != nil {
		end.Fault.Chain = CauseChain(err)
	}
	return enc.Encode(end)
}

func (s *Server) connect(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	var req ConnectRequest
	if err := readJSON(r, maxOnboarding, &req); err != nil {
		return err
	}
	return s.progress(w, func(step func(string)) error {
		return s.agent.Connect(context.WithoutCancel(r.Context()), req, step)
	})
}

func (s *Server) disconnect(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	var req struct {
		LocalOnly bool `json:"local_only"`
	}
	if err := readJSON(r, maxRequest, &req); err != nil {
		return err
	}
	return s.progress(w, func(step func(string)) error {
		return s.agent.Disconnect(context.WithoutCancel(r.Context()), req.LocalOnly, step)
	})
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	var req struct {
		ClientID string `json:"client_id"`
	}
	if err := readJSON(r, maxRequest, &req); err != nil {
		return err
	}
	return s.progress(w, func(step func(string)) error { return s.agent.Renew(r.Context(), req.ClientID, step) })
}

func (s *Server) adopt(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	return s.progress(w, func(step func(string)) error { return s.agent.Adopt(r.Context(), step) })
}

func (s *Server) reset(w http.ResponseWriter, r *http.Request, _ platform.Peer) error {
	var req struct {
		What string `json:"what"`
	}
	if err := readJSON(r, maxRequest, &req); err != nil {
		return err
	}
	return s.progress(w, func(step func(string)) error { return s.agent.Reset(r.Context(), req.What, step) })
}
