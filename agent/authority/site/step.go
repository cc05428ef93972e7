package site

import (
	"fmt"
	"net/http"
	"strings"
)

func (a *Authority) serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (a *Authority) serveVersion(w http.ResponseWriter, _ *http.Request) {
	version := a.opts.Version
	if version == "" {
		version = "N/A" // as a step-ca that was built without one
	}
	writeJSON(w, http.StatusOK, map[string]string{"version": version})
}

// serveRoot gives the root to whoever knows its fingerprint: that is the pin
// with which a device starts.
func (a *Authority) serveRoot(w http.ResponseWriter, r *http.Request) {
	sum := strings.ToLower(strings.ReplaceAll(r.PathValue("sha"), "-", ""))
	if sum != a.RootSHA256() {
		stepError{
			status:  http.StatusNotFound,
			message: fmt.Sprintf("root certificate with fingerprint %q was not found", cut(sum, 128)),
		}.write(w)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"ca": a.RootPEM()})
}

func (a *Authority) serveRootsPEM(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write([]byte(a.RootPEM()))
}

// serveProvisioners lists the one provisioner there is, as step-ca lists a JWK one.
func (a *Authority) serveProvisioners(w http.ResponseWriter, _ *http.Request) {
	x, y, err := coordinates(a.claims.key.Public())
	if err != nil {
		stepError{status: http.StatusInternalServerError}.write(w)
		return
	}
	type entry struct {
		Type   string            `json:"type"`
		Name   string            `json:"name"`
		Key    jwk               `json:"key"`
		Claims map[string]string `json:"claims"`
	}
	writeJSON(w, http.StatusOK, struct {
		Provisioners []entry `json:"provisioners"`
		Next         string  `json:"nextCursor"`
	}{[]entry{{
		Type: "JWK", Name: provisioner,
		Key: jwk{Type: "EC", Use: "sig", KeyID: a.kid, Algorithm: "ES256", Curve: "P-256", X: x, Y: y},
		Claims: map[string]string{
			"minTLSCertDuration": leafLifeLeast.String(), "maxTLSCertDuration": a.opts.CertificateLife.String(), "defaultTLSCertDuration": a.opts.CertificateLife.String(),
		},
	}}, ""})
}
