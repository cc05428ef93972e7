package endpoint

import (
	"net/http"
	"strings"
)

// guard is one check of a request. refused is true with the answer to give.
// Each guard names the attack that it stops; TestEveryGuardIsNeeded fails for
// each one that is taken out of its list.
type guard struct {
	name  string
	check func(f *front, r *http.Request) (a answer, refused bool)
}

// guards in the order of firmware-notes/wire.md: those before the route is looked
// at, and those after route and method.
type guards struct {
	early []guard
	late  []guard
}

func everyGuard() guards {
	return guards{
		early: []guard{
			{"form", guardForm},
			{"host", guardHost},
		},
		late: []guard{
			{"body", guardBody},
			{"browser", guardBrowser},
			{"forwarded", guardForwarded},
			{"metadata", guardMetadata},
		},
	}
}

// run returns the first refusal of a list.
func run(list []guard, f *front, r *http.Request) (name string, a answer, refused bool) {
	for i := range list {
		if a, refused := list[i].check(f, r); refused {
			return list[i].name, a, true
		}
	}
	return "", answer{}, false
}

// guardForm lets only origin-form and HTTP/1.0 or 1.1 through. net/http also
// takes absolute-form, where the target overrides Host; CONNECT; "OPTIONS *";
// and the preface of HTTP/2 (measured). A request with two Hosts it refuses
// itself.
func guardForm(_ *front, r *http.Request) (answer, bool) {
	if r.ProtoMajor == 1 && r.ProtoMinor <= 1 && strings.HasPrefix(r.RequestURI, "/") {
		return answer{}, false
	}
	return answer{
		status: http.StatusBadRequest, code: codeInvalidRequest, close: true,
		text: "The request line is not that of HTTP/1.0 or 1.1 with a path. If it was HTTP, " + adviceNoProxy,
	}, true
}

// guardHost answers only to names that nobody else's DNS can lead here (DNS
// rebinding, T5). An HTTP/1.0 request without Host is refused by it too.
func guardHost(f *front, r *http.Request) (answer, bool) {
	if _, ok := f.hosts[r.Host]; ok {
		return answer{}, false
	}
	return answer{
		status: http.StatusBadRequest, code: codeInvalidRequest,
		text: "Host names another server: only localhost, 127.0.0.1, [::1], 169.254.169.254 and configured names are answered here, bare or with this port. See: postern env",
	}, true
}

// guardBody refuses a request with a body, which no client sends: it would have
// to be read, or would be taken for the next request (smuggling, T6).
func guardBody(_ *front, r *http.Request) (answer, bool) {
	if !hasBody(r) {
		return answer{}, false
	}
	return answer{
		status: http.StatusBadRequest, code: codeInvalidRequest, close: true,
		text: "The request has a body, and a GET has none here: send it without Content-Length and Transfer-Encoding",
	}, true
}

func hasBody(r *http.Request) bool { return r.ContentLength != 0 || len(r.TransferEncoding) > 0 }

// guardBrowser refuses what only browsers send (T5). Sec-Fetch-Mode is not
// among it: Node's fetch, and so msal-node, sends it (firmware-notes/wire.md, R13).
func guardBrowser(_ *front, r *http.Request) (answer, bool) {
	for name := range r.Header {
		mark := name
		switch name {
		case "Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Dest", "Sec-Fetch-User", "Upgrade":
		default:
			mark = "Access-Control-Request-"
			if !strings.HasPrefix(name, mark) {
				continue
			}
		}
		return answer{
			status: http.StatusBadRequest, code: codeInvalidRequest,
			text: "The request comes from a browser (" + mark + "): pages get no tokens here. Use an SDK or: curl -H Metadata:true",
		}, true
	}
	return answer{}, false
}

// guardForwarded refuses what a proxy or a forged server-side request left its
// traces on (T6).
func guardForwarded(_ *front, r *http.Request) (answer, bool) {
	for name := range r.Header {
		switch name {
		case "Forwarded", "Via", "X-Real-Ip":
		default:
			if !strings.HasPrefix(name, "X-Forwarded-") && !strings.HasPrefix(name, "Cf-") {
				continue
			}
		}
		return answer{
			status: http.StatusBadRequest, code: codeInvalidRequest,
			text: adviceNoProxy,
		}, true
	}
	return answer{}, false
}

const adviceNoProxy = "a proxy forwarded this request; add 127.0.0.1,localhost,169.254.169.254 to NO_PROXY"

// guardMetadata wants the header that a page cannot set without a preflight,
// which gets 405, and that most forged requests cannot set at all (T5, T6).
// Workloads prove more: their secret stands in a header of its own.
func guardMetadata(f *front, r *http.Request) (answer, bool) {
	if f.flavour == AppService {
		return answer{}, false
	}
	if v := r.Header["Metadata"]; len(v) == 1 && strings.EqualFold(v[0], "true") {
		return answer{}, false
	}
	return answer{
		status: http.StatusBadRequest, code: codeNoMetadata,
		text: "Required metadata header not specified",
	}, true
}
