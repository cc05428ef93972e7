package site

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The admin API is private: JSON over HTTP on a unix socket or named pipe,
// POST /VERB, one verb for each method. It carries no promise and no agent
// uses it. Roles will decide here, per verb and scope; today the only
// principals are the accounts that Options.Administrator lets in.

// verb is one method of the administration on the wire.
type verb func(context.Context, *Authority, []byte) (any, error)

// on makes a verb of a method with one argument and one result.
func on[Req, Res any](f func(*Authority, context.Context, Req) (Res, error)) verb {
	return func(ctx context.Context, a *Authority, body []byte) (any, error) {
		var req Req
		if err := readRequest(body, &req); err != nil {
			return nil, err
		}
		return f(a, ctx, req)
	}
}

func readRequest(body []byte, req any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(req); err != nil {
		return errors.Join(ErrInvalid, err)
	}
	return nil
}

// The requests that are no exported type of their own.
type (
	none        struct{}
	nameRequest struct {
		Name string `json:"name"`
	}
	identityRequest struct {
		Name     string `json:"name"`
		Group    string `json:"group,omitempty"`
		Force    bool   `json:"force,omitempty"`
		Disabled bool   `json:"disabled,omitempty"`
	}
	assignmentRequest struct {
		Identity string `json:"identity"`
		Machine  string `json:"machine"`
	}
	claimResponse struct {
		Token   string    `json:"token"`
		Machine string    `json:"machine"`
		Expires time.Time `json:"expires"`
	}
)

func verbs() map[string]verb {
	return map[string]verb{
		"info":     on(func(a *Authority, ctx context.Context, _ none) (Info, error) { return a.Info(ctx) }),
		"machines": on(func(a *Authority, ctx context.Context, _ none) ([]Machine, error) { return a.Machines(ctx) }),
		"machine": on(func(a *Authority, ctx context.Context, r nameRequest) (Machine, error) {
			return a.MachineByName(ctx, r.Name)
		}),
		"identities": on(func(a *Authority, ctx context.Context, _ none) ([]Identity, error) { return a.Identities(ctx) }),
		"resources":  on(func(a *Authority, ctx context.Context, _ none) ([]Resource, error) { return a.Resources(ctx) }),
		"audit":      on((*Authority).Audit),
		"claim-create": on(func(a *Authority, ctx context.Context, r ClaimRequest) (claimResponse, error) {
			c, err := a.CreateClaim(ctx, r)
			return claimResponse{c.Token.Reveal(), c.Machine, c.Expires}, err
		}),
		"identity-create": on(func(a *Authority, ctx context.Context, r identityRequest) (Identity, error) {
			return a.CreateIdentity(ctx, r.Name, r.Group)
		}),
		"identity-delete": done(func(a *Authority, ctx context.Context, r identityRequest) error {
			return a.DeleteIdentity(ctx, r.Name, r.Force)
		}),
		"identity-disable": done(func(a *Authority, ctx context.Context, r identityRequest) error {
			return a.DisableIdentity(ctx, r.Name, r.Disabled)
		}),
		"assign": done(func(a *Authority, ctx context.Context, r assignmentRequest) error {
			return a.Assign(ctx, r.Identity, r.Machine)
		}),
		"assign-renew": done(func(a *Authority, ctx context.Context, r assignmentRequest) error {
			return a.RenewAssignment(ctx, r.Identity, r.Machine)
		}),
		"unassign": done(func(a *Authority, ctx context.Context, r assignmentRequest) error {
			return a.Unassign(ctx, r.Identity, r.Machine)
		}),
		"machine-delete":     done(func(a *Authority, ctx context.Context, r nameRequest) error { return a.DeleteMachine(ctx, r.Name) }),
		"machine-revoke":     done(func(a *Authority, ctx context.Context, r nameRequest) error { return a.RevokeMachine(ctx, r.Name) }),
		"certificate-revoke": done(func(a *Authority, ctx context.Context, r nameRequest) error { return a.RevokeCertificate(ctx, r.Name) }),
		"resource-add":       done((*Authority).AddResource),
		"resource-remove":    done(func(a *Authority, ctx context.Context, r nameRequest) error { return a.RemoveResource(ctx, r.Name) }),
	}
}

// done makes a verb of a method without a result.
func done[Req any](f func(*Authority, context.Context, Req) error) verb {
	return on(func(a *Authority, ctx context.Context, req Req) (none, error) { return none{}, f(a, ctx, req) })
}

// adminError is an error on the wire.
type adminError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// adminCodes are the sentinels that cross the socket.
func adminCodes() map[string]error {
	return map[string]error{
		"not-found": ErrNotFound, "exists": ErrExists, "assigned": ErrAssigned, "invalid": ErrInvalid,
		"too-many": ErrTooMany, "not-administrator": ErrNotAdministrator,
	}
}

type admittedKey struct{}

type admitted struct {
	principal string
	ok        bool
}

// ServeAdmin answers the administration on l, a unix socket or named pipe,
// until ctx ends; it closes l. Who may is asked once for each connection, of
// Options.Administrator; everybody else gets 403 and nothing is read.
func (a *Authority) ServeAdmin(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	for name, v := range verbs() {
		mux.Handle("POST /"+name, a.admin(v))
	}
	server := &http.Server{
		Handler: onlyAdmitted(mux), ReadHeaderTimeout: maxTime, ReadTimeout: adminTime, WriteTimeout: adminTime, IdleTimeout: adminTime,
		MaxHeaderBytes: maxHeader - headerSlack, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			who := admitted{}
			if s, ok := c.(*slotted); ok {
				c = s.Conn // the peer is looked up on the socket itself
			}
			if a.opts.Administrator != nil {
				who.principal, who.ok = a.opts.Administrator(c)
			}
			return context.WithValue(ctx, admittedKey{}, who)
		},
	}
	return serve(ctx, server, limit(l, adminConnections))
}

func onlyAdmitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := r.Context().Value(admittedKey{}).(admitted)
		if !who.ok {
			w.Header().Set("Connection", "close")
			writeJSON(w, http.StatusForbidden, adminError{"not-administrator", ErrNotAdministrator.Error()})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(WithPrincipal(r.Context(), who.principal)))
	})
}

func (a *Authority) admin(v verb) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			writeJSON(w, http.StatusBadRequest, adminError{"invalid", "the request is too large or broken"})
			return
		}
		result, err := v(r.Context(), a, body)
		if err == nil {
			writeJSON(w, http.StatusOK, result)
			return
		}
		failure := adminError{"failed", err.Error()}
		status := http.StatusInternalServerError
		for code, sentinel := range adminCodes() {
			if errors.Is(err, sentinel) {
				failure.Code, status = code, http.StatusConflict
			}
		}
		writeJSON(w, status, failure)
	})
}
