package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

func endpointChecks() []check {
	return slices.Concat([]check{
		{"port-owner", "endpoint", failed, checkPortOwner},
	}, imdsChecks(), []check{
		{"proxy-loopback", "endpoint", warning, checkProxyLoopback},
		{"client-self-test", "endpoint", failed, checkSelfTest},
	})
}

// checkPortOwner asks whose the addresses are on which clients ask for tokens.
func checkPortOwner(_ context.Context, f *facts) finding {
	if f.running {
		e := f.status.Endpoint
		if e.Problem != "" {
			return bad(first(f.status.Fix, "postern status"), "%s", e.Problem)
		}
		serving := slices.Concat(e.Arc, e.IMDS, e.Workloads)
		if len(serving) == 0 {
			return bad("postern config print", "the agent serves no address")
		}
		return ok("ours: %s", strings.Join(serving, ", "))
	}
	for _, address := range f.arc() {
		if owner := f.host.PortOwner(address); owner != "" {
			return bad("sudo ss -ltnp 'sport = :"+portOf(address)+"'", "%s is held by %s, which is not postern", address, owner)
		}
	}
	return skip(startAgent, "no agent runs; nobody holds %s", strings.Join(orNone(f.arc()), ", "))
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return port
}

// checkProxyLoopback finds a proxy that would be asked for localhost.
func checkProxyLoopback(context.Context, *facts) finding {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		if os.Getenv(name) == "" {
			continue
		}
		if except := first(os.Getenv("NO_PROXY"), os.Getenv("no_proxy")); !excepts(except) {
			return warn("export NO_PROXY=localhost,127.0.0.1,::1,169.254.169.254", "%s is set, and NO_PROXY does not except this machine", name)
		}
	}
	return ok("no proxy stands before localhost")
}

func excepts(list string) bool {
	local := 0
	for item := range strings.SplitSeq(list, ",") {
		switch item = strings.TrimSpace(item); item {
		case "*":
			return true
		case "localhost":
			local++
		default:
			if a, err := netip.ParseAddr(item); err == nil && a.IsLoopback() && a.Is4() {
				local++
			}
		}
	}
	return local >= 2
}
