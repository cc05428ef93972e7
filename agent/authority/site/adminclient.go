package site

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"

	"postern/store"
)

// maxAdminAnswer bounds what the client reads: a page of audit records is the
// largest answer. Lists of machines grow with the site.
const maxAdminAnswer = 256 << 20

// Admin is the far end of an authority's admin socket. It has the methods of
// Authority that administer, with the same meanings and the same sentinel
// errors. Safe for concurrent use.
type Admin struct {
	client *http.Client
}

// NewAdmin returns a client that reaches the socket by dial.
func NewAdmin(dial func(context.Context) (net.Conn, error)) *Admin {
	return &Admin{client: &http.Client{
		Timeout: adminTime,
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableKeepAlives: true,
		},
	}}
}

// remoteError is an error that came over the socket.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

// call asks for one verb.
func call[Res any](ctx context.Context, c *Admin, name string, req any) (res Res, err error) {
	err = c.ask(ctx, name, req, &res)
	return res, err
}

// ask asks for one verb and reads the result into res, a pointer.
func (c *Admin) ask(ctx context.Context, name string, req, res any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://authority/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := c.client.Do(r)
	if err != nil {
		return fmt.Errorf("authority %s: %w", name, err)
	}
	defer func() { _ = answer.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAdminAnswer))
	if err != nil {
		return fmt.Errorf("authority %s: %w", name, err)
	}
	if answer.StatusCode != http.StatusOK {
		return remote(name, answer.StatusCode, raw)
	}
	if err := json.Unmarshal(raw, res); err != nil {
		return fmt.Errorf("authority %s: answer: %w", name, err)
	}
	return nil
}

func remote(name string, status int, raw []byte) error {
	var failure adminError
	if err := json.Unmarshal(raw, &failure); err != nil || failure.Message == "" {
		return fmt.Errorf("authority %s: status %d", name, status)
	}
	return &remoteError{text: failure.Message, is: adminCodes()[failure.Code]}
}

// do asks for a verb without a result.
func (c *Admin) do(ctx context.Context, name string, req any) error {
	return c.ask(ctx, name, req, &none{})
}

// Info is Authority.Info.
func (c *Admin) Info(ctx context.Context) (Info, error) { return call[Info](ctx, c, "info", none{}) }

// Machines is Authority.Machines.
func (c *Admin) Machines(ctx context.Context) ([]Machine, error) {
	return call[[]Machine](ctx, c, "machines", none{})
}

// MachineByName is Authority.MachineByName.
func (c *Admin) MachineByName(ctx context.Context, name string) (Machine, error) {
	return call[Machine](ctx, c, "machine", nameRequest{name})
}

// Identities is Authority.Identities.
func (c *Admin) Identities(ctx context.Context) ([]Identity, error) {
	return call[[]Identity](ctx, c, "identities", none{})
}

// Resources is Authority.Resources.
func (c *Admin) Resources(ctx context.Context) ([]Resource, error) {
	return call[[]Resource](ctx, c, "resources", none{})
}

// Audit is Authority.Audit.
func (c *Admin) Audit(ctx context.Context, query AuditQuery) (AuditPage, error) {
	return call[AuditPage](ctx, c, "audit", query)
}

// CreateClaim is Authority.CreateClaim.
func (c *Admin) CreateClaim(ctx context.Context, req ClaimRequest) (Claim, error) {
	r, err := call[claimResponse](ctx, c, "claim-create", req)
	return Claim{Token: store.NewSecret(r.Token), Machine: r.Machine, Expires: r.Expires}, err
}

// CreateIdentity is Authority.CreateIdentity.
func (c *Admin) CreateIdentity(ctx context.Context, name, group string) (Identity, error) {
	return call[Identity](ctx, c, "identity-create", identityRequest{Name: name, Group: group})
}

// DeleteIdentity is Authority.DeleteIdentity.
func (c *Admin) DeleteIdentity(ctx context.Context, name string, force bool) error {
	return c.do(ctx, "identity-delete", identityRequest{Name: name, Force: force})
}

// DisableIdentity is Authority.DisableIdentity.
func (c *Admin) DisableIdentity(ctx context.Context, name string, disabled bool) error {
	return c.do(ctx, "identity-disable", identityRequest{Name: name, Disabled: disabled})
}

// Assign is Authority.Assign.
func (c *Admin) Assign(ctx context.Context, identity, machine string) error {
	return c.do(ctx, "assign", assignmentRequest{identity, machine})
}

// RenewAssignment is Authority.RenewAssignment.
func (c *Admin) RenewAssignment(ctx context.Context, identity, machine string) error {
	return c.do(ctx, "assign-renew", assignmentRequest{identity, machine})
}

// Unassign is Authority.Unassign.
func (c *Admin) Unassign(ctx context.Context, identity, machine string) error {
	return c.do(ctx, "unassign", assignmentRequest{identity, machine})
}

// DeleteMachine is Authority.DeleteMachine.
func (c *Admin) DeleteMachine(ctx context.Context, name string) error {
	return c.do(ctx, "machine-delete", nameRequest{name})
}

// RevokeMachine is Authority.RevokeMachine.
func (c *Admin) RevokeMachine(ctx context.Context, name string) error {
	return c.do(ctx, "machine-revoke", nameRequest{name})
}

// RevokeCertificate is Authority.RevokeCertificate.
func (c *Admin) RevokeCertificate(ctx context.Context, serial string) error {
	return c.do(ctx, "certificate-revoke", nameRequest{serial})
}

// AddResource is Authority.AddResource.
func (c *Admin) AddResource(ctx context.Context, r Resource) error {
	return c.do(ctx, "resource-add", r)
}

// RemoveResource is Authority.RemoveResource.
func (c *Admin) RemoveResource(ctx context.Context, identifier string) error {
	return c.do(ctx, "resource-remove", nameRequest{identifier})
}
