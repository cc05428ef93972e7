// Package authority is how a driver talks to an authority: the one builder of
// HTTPS clients, the limits on what an answer may cost, and the reduction of
// everything that can go wrong on the way to a lifecycle.Error.
//
// It knows no protocol. The drivers stepca and oauth decide what an answer
// means; what never became an answer is decided here. The rules are those of
// firmware-notes/limits.md and firmware-notes/authorities.md (TLS):
//
//   - nothing is sent, the client certificate included, before the server has
//     been verified: chain, name, time, use, key strength, TLS 1.2 or newer;
//   - no switch turns verification off;
//   - https and HTTP/1.1 only, no compression, no redirect, no cookie;
//   - environment variables are not read: proxy and roots come from Config.
package authority
