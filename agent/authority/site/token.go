package site

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/agent/authority/jws"
)

// accessToken are the claims of an access token. There is never a "cnf": the
// program that uses a token does not hold the device's key.
type accessToken struct {
	Issuer     string   `json:"iss"`
	Audience   string   `json:"aud"`
	IssuedAt   jws.Time `json:"iat"`
	NotFrom    jws.Time `json:"nbf"`
	Expires    jws.Time `json:"exp"`
	ID         string   `json:"jti"`
	Subject    string   `json:"sub"`
	ObjectID   string   `json:"oid"`
	TenantID   string   `json:"tid"`
	Party      string   `json:"azp"`
	AppID      string   `json:"appid"`
	Type       string   `json:"idtyp"`
	Version    string   `json:"ver"`
	ResourceID string   `json:"xms_mirid"`
}

type tokenResponse struct {
	Type        string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	ExtendedIn  int64  `json:"ext_expires_in"`
	AccessToken string `json:"access_token"`
}

// serveToken is POST /{tenant}/oauth2/v2.0/token, client_credentials only.
func (a *Authority) serveToken(w http.ResponseWriter, r *http.Request) {
	if !a.isTenant(w, r) {
		return
	}
	e := Entry{Action: "token"}
	form, err := tokenForm(r)
	if err != nil {
		a.oauthRefuse(w, r, e, err)
		return
	}
	c, err := a.authenticate(r, form)
	e.ClientID = cut(c.clientID, 36)
	if c.machine.Name != "" {
		e.Machine = c.machine.Name
	}
	if err != nil {
		a.oauthRefuse(w, r, e, err)
		return
	}
	// Only now: a stranger must not use up the turns of an identity.
	if wait, ok := a.gate.pass(c.identity.ClientID, a.now()); !ok {
		a.oauthRefuse(w, r, e, tooMany{wait})
		return
	}
	resource, err := requestedResource(form)
	e.Resource = cut(resource, 256)
	if err != nil {
		a.oauthRefuse(w, r, e, err)
		return
	}
	response, err := a.issueToken(r, c, resource)
	if err != nil {
		a.oauthRefuse(w, r, e, err)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Pragma", "no-cache")
	writeJSON(w, http.StatusOK, response)
}

// tokenForm reads the form. Unknown fields are ignored (clients send
// telemetry); a known one may come once.
func tokenForm(r *http.Request) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, errMissing("grant_type")
	}
	if err := r.ParseForm(); err != nil {
		if _, large := tooLarge(err); large {
			return nil, oauthError{http.StatusRequestEntityTooLarge, "invalid_request", 0, "The request is too large.", nil}
		}
		return nil, oauthError{http.StatusBadRequest, "invalid_request", 900144, "The request body is not a form.", err}
	}
	form := r.PostForm
	for _, name := range []string{"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "scope", "resource", "audience"} {
		if len(form[name]) > 1 {
			return nil, errDoubled(name)
		}
	}
	switch grant := form.Get("grant_type"); grant {
	case "client_credentials":
		return form, nil
	case "":
		return nil, errMissing("grant_type")
	default:
		return nil, errGrant(grant)
	}
}

// requestedResource finds the one resource that a form asks for: by scope with
// /.default (Entra ID), resource (RFC 8707) or audience (fosite). The suffix is
// taken off as it stands: "https://management.azure.com//.default" is
// "https://management.azure.com/".
func requestedResource(form url.Values) (string, error) {
	var asked []string
	for _, name := range []string{"resource", "audience"} {
		if form.Get(name) != "" {
			asked = append(asked, form.Get(name))
		}
	}
	scope := form.Get("scope")
	for _, s := range strings.Fields(scope) {
		if slices.Contains([]string{"openid", "offline_access", "profile"}, s) {
			continue // msal-go adds them
		}
		resource, ok := strings.CutSuffix(s, "/.default")
		if !ok || resource == "" {
			return "", errScope(scope)
		}
		asked = append(asked, resource)
	}
	switch len(asked) {
	case 0:
		return "", errMissing("scope")
	case 1:
		return asked[0], nil
	}
	return asked[0], oauthError{http.StatusBadRequest, "invalid_scope", 70011, "The request must name exactly one resource, by one of scope, resource and audience.", nil}
}

// issueToken signs a token and commits its audit record, with the assertion's
// id, before it is handed out. Everything that was checked before is checked
// again in that commit: an unassignment in between wins.
func (a *Authority) issueToken(r *http.Request, c client, resource string) (tokenResponse, error) {
	var found Resource
	err := a.view(func(t *tx) (err error) {
		found, err = t.resource(resource)
		return err
	})
	if err != nil {
		return tokenResponse{}, err
	}
	key, _, err := a.signingKeys(r.Context())
	if err != nil {
		return tokenResponse{}, err
	}
	now := a.now().UTC().Truncate(time.Second)
	claims := accessToken{
		Issuer: a.issuerURL(), Audience: resource, ID: newID(),
		IssuedAt: jws.Time{Time: now}, NotFrom: jws.Time{Time: now}, Expires: jws.Time{Time: now.Add(found.Life)},
		Subject: c.identity.ObjectID, ObjectID: c.identity.ObjectID, TenantID: a.tenant, Party: c.identity.ClientID, AppID: c.identity.ClientID,
		Type: "app", Version: "2.0", ResourceID: c.identity.ResourceID,
	}
	token, err := jws.Sign(key.key, jws.RS256, map[string]string{"typ": a.opts.TokenType, "kid": key.kid}, claims)
	if err != nil {
		return tokenResponse{}, fmt.Errorf("sign access token: %w", err)
	}
	sum := sha256.Sum256([]byte(token))
	err = a.update(r.Context(), func(t *tx) error {
		h, err := t.holderOf(c.certificate.Serial)
		if err != nil {
			return a.clientError(c, err)
		}
		if err := t.replay(c); err != nil {
			return err
		}
		if err := t.seen(&h); err != nil {
			return err
		}
		t.note(Entry{
			Action: "token", Principal: h.identity.ObjectID, Name: h.identity.Name, Source: r.RemoteAddr, Scope: h.identity.ResourceID, Request: correlation(r),
			Machine: h.machine.Name, ClientID: h.identity.ClientID, Resource: resource, JTI: claims.ID, Serial: h.certificate.Serial,
			Expires: claims.Expires.Time, Token: hex.EncodeToString(sum[:8]), Reason: c.method,
		})
		return nil
	})
	if err != nil {
		return tokenResponse{}, err
	}
	a.touch(r.Context(), c.machine.VMID)
	left := int64(found.Life/time.Second) - 1 // as the real service: a second is lost on the way
	return tokenResponse{Type: "Bearer", ExpiresIn: left, ExtendedIn: left, AccessToken: token}, nil
}

// replay remembers the id of an assertion until nobody would take it any more,
// and refuses one that it remembers. It also sweeps a few that are over.
func (t *tx) replay(c client) error {
	if c.method != "private_key_jwt" {
		return nil
	}
	if err := t.sweepReplays(); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(c.identity.ClientID + "\x00" + c.jti))
	key := hex.EncodeToString(sum[:])
	_, err := load[replayRecord](t, bucketReplay, key)
	switch {
	case err == nil:
		return oauthError{http.StatusBadRequest, "jti_known", 0, "The jti of the client assertion was used before; make a fresh one for every request.", nil}
	case !errors.Is(err, errAbsent):
		return err
	case t.a.replayCount(c.identity.ClientID, 0) >= maxReplays:
		return tooMany{time.Minute}
	}
	r := replayRecord{ClientID: c.identity.ClientID, Until: c.expires.Add(assertionSkew).UTC()}
	t.after = append(t.after, func() { t.a.replayCount(r.ClientID, 1) })
	return errors.Join(save(t, bucketReplay, key, r), save(t, bucketReplayUntil, replayKey(r.Until, key), r))
}

func replayKey(until time.Time, key string) string { return fmt.Sprintf("%020d/%s", until.Unix(), key) }

// sweepReplays drops the ids that are over, oldest first, a few at a time.
func (t *tx) sweepReplays() error {
	const atOnce = 8
	old := map[string]string{}
	err := each(t, bucketReplayUntil, func(key string, r replayRecord) error {
		if len(old) == atOnce || !t.now.After(r.Until) {
			return errEnough
		}
		old[key] = r.ClientID
		return nil
	})
	for key, clientID := range old {
		_, digest, _ := strings.Cut(key, "/")
		err = errors.Join(err, drop(t, bucketReplayUntil, key), drop(t, bucketReplay, digest))
		t.after = append(t.after, func() { t.a.replayCount(clientID, -1) })
	}
	return err
}

// replayCount adds to the number of ids kept for an identity and returns it.
func (a *Authority) replayCount(clientID string, add int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.replays[clientID] + add
	if n <= 0 {
		delete(a.replays, clientID)
	} else if add != 0 {
		a.replays[clientID] = n
	}
	return n
}
