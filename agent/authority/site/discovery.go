package site

import (
	"net/http"
)

// discovery is the OpenID and RFC 8414 metadata. The documents at the root are
// the tenant's: their issuer is what stands in tokens.
type discovery struct {
	Issuer        string            `json:"issuer"`
	Authorization string            `json:"authorization_endpoint"` // clients insist on it; it answers 400
	Token         string            `json:"token_endpoint"`
	Keys          string            `json:"jwks_uri"`
	ResponseTypes []string          `json:"response_types_supported"`
	GrantTypes    []string          `json:"grant_types_supported"`
	SubjectTypes  []string          `json:"subject_types_supported"`
	IDTokenAlgs   []string          `json:"id_token_signing_alg_values_supported"`
	Scopes        []string          `json:"scopes_supported"`
	AuthMethods   []string          `json:"token_endpoint_auth_methods_supported"`
	AuthAlgs      []string          `json:"token_endpoint_auth_signing_alg_values_supported"`
	Aliases       map[string]string `json:"mtls_endpoint_aliases"`
	Bound         bool              `json:"tls_client_certificate_bound_access_tokens"`
}

func (a *Authority) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	if !a.isTenant(w, r) {
		return
	}
	writeJSON(w, http.StatusOK, discovery{
		Issuer: a.issuerURL(), Token: a.tokenURL(), Keys: a.keysURL(),
		Authorization: a.base + "/" + a.tenant + "/oauth2/v2.0/authorize",
		ResponseTypes: []string{"token"}, GrantTypes: []string{"client_credentials"}, SubjectTypes: []string{"public"},
		IDTokenAlgs: []string{"RS256"}, Scopes: []string{"openid"},
		AuthMethods: []string{"private_key_jwt", "tls_client_auth"}, AuthAlgs: []string{"PS256", "RS256", "ES256"},
		Aliases: map[string]string{"token_endpoint": a.tokenURL()},
	})
}

// isTenant answers requests for other tenants, "common" and its like included.
func (a *Authority) isTenant(w http.ResponseWriter, r *http.Request) bool {
	tenant := r.PathValue("tenant")
	if tenant == "" || equalFold(tenant, a.tenant) {
		return true
	}
	a.oauthRefuse(w, r, Entry{Action: "token"}, errTenant(tenant))
	return false
}

func (a *Authority) serveKeys(w http.ResponseWriter, r *http.Request) {
	if !a.isTenant(w, r) {
		return
	}
	_, published, err := a.signingKeys(r.Context())
	if err != nil {
		a.oauthRefuse(w, r, Entry{Action: "keys"}, err)
		return
	}
	keys := make([]jwk, 0, len(published))
	for _, k := range published {
		keys = append(keys, rsaJWK(k.kid, &k.key.PublicKey))
	}
	w.Header().Set("Cache-Control", "max-age=3600")
	writeJSON(w, http.StatusOK, map[string][]jwk{"keys": keys})
}

// serveAuthorize refuses: nobody signs in here. Clients that read discovery
// documents want the address to exist.
func (a *Authority) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	if a.isTenant(w, r) {
		a.oauthRefuse(w, r, Entry{Action: "authorize"},
			oauthError{http.StatusBadRequest, "unsupported_response_type", 70005, "This authority issues tokens to machines only; there is no interactive sign-in.", nil})
	}
}
