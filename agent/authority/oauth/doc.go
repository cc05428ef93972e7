// Package oauth is the driver that trades a credential for a token: the OAuth
// 2.0 client credentials grant (RFC 6749 section 4.4) with private_key_jwt (RFC
// 7523) or tls_client_auth (RFC 8705), against any server. Entra ID is a preset
// of it (firmware-notes/authorities.md).
//
// It believes nothing that it did not check: the server by TLS, the answer by
// its form, the token by its audience. It keeps no token and retries nothing
// but one assertion whose time was wrong; caching and retrying are the
// broker's. Every refusal becomes a class of package lifecycle here, and
// nobody above looks at status codes or error words.
package oauth
