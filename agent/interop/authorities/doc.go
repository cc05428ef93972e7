// Package authorities runs the drivers stepca and oauth against the real
// servers of firmware-notes/authorities.md: smallstep's step-ca, panva's
// oidc-provider and ory's fosite. It is a module of its own, so that their
// weight stays out of the product's go.mod.
//
//	cd agent/interop/authorities && go test -tags interop ./...
//
// The servers are fetched through the ordinary clients (go install, npm) into
// the user's cache directory, POSTERN_INTEROP_CACHE if it is set, and run on
// loopback for as long as their test. The first run takes about four minutes,
// most of it the building of step-ca. A tool that cannot be had is a failure:
// a conformance run that leaves a peer out proves nothing about it.
package authorities
