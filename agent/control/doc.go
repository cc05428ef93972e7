// Package control is the way into a running agent: a small HTTP API on a unix
// socket (a named pipe on Windows), and the client that the verbs use.
//
// Anyone local may reach the socket; what a caller may do is decided by the
// peer's credentials, request by request, never by the mode of the socket:
// anyone may read the status without callers and wait, members of the token
// group may ask for a token as the endpoint would give it, and only
// administrators (uid 0, the agent's own account) may change anything.
//
// The API carries no promise across releases: both ends are one binary.
package control
