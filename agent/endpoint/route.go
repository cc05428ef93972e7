package endpoint

import "strings"

// handle answers a request whose path and method are right; leaf is the rest of
// the path below a document.
type handle func(x *exchange, query, leaf string)

const (
	pathToken      = "/metadata/identity/oauth2/token"
	pathAppService = "/msi/token"
	pathInfo       = "/metadata/identity/info"
	pathInstance   = "/metadata/instance"
	pathVersions   = "/metadata/versions"
)

// route finds what answers at path; nil for a 404. It looks at the bytes as they
// came, tolerates a trailing slash and doubled ones, and never redirects
// (firmware-notes/wire.md, R11). What is not listed does not exist, with the Metadata
// header or without: getplatformmetadata and issuecredential must be 404, or
// two SDKs believe in the certificate-bound protocol.
func (x *exchange) route(path string) (h handle, leaf string) {
	path = tidy(path)
	if x.flavour == AppService {
		if path == pathAppService {
			return (*exchange).appService, ""
		}
		return nil, ""
	}
	switch path {
	case pathToken:
		if x.flavour == Arc {
			return (*exchange).arc, ""
		}
		return (*exchange).imds, ""
	case pathInfo:
		return (*exchange).info, ""
	case pathVersions:
		return (*exchange).versions, ""
	}
	if rest, ok := strings.CutPrefix(path, pathInstance); ok && (rest == "" || rest[0] == '/') {
		return (*exchange).instance, strings.TrimPrefix(rest, "/")
	}
	return nil, ""
}

// tidy collapses runs of slashes and drops one at the end.
func tidy(path string) string {
	if strings.Contains(path, "//") {
		b := make([]byte, 0, len(path))
		for i := range len(path) {
			if path[i] != '/' || i == 0 || path[i-1] != '/' {
				b = append(b, path[i])
			}
		}
		path = string(b)
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}
