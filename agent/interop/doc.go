// Package interop runs real, unmodified clients against the built binary:
// azidentity in three versions, @azure/identity and msal-node in two each, the
// documented recipe of curl, and the JDK's HTTP client. They live in modules and
// npm folders of their own, so that their weight stays out of the product.
//
//	(cd js && npm ci) && go test ./...
//
// What the clients need is hard-coded in them: the token directory, the marker
// file, port 40342, 169.254.169.254. So each test runs itself again inside
// private namespaces (network, mounts, processes), with accounts of its own: a
// member of the token group and one that is not. Nothing outside is touched, and
// nothing but loopback can be reached. That takes root; without it the tests
// skip and say so. A tool that is missing is a failure.
//
// Not covered: the state Rejected (two refusals, ten minutes apart), which the
// simulations of agent and agent/credential reach, and Windows.
package interop
