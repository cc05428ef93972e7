// Command goclient asks for one token with azidentity and prints what a caller
// sees as one line of JSON. It is built once per version of the library: go.mod
// has today's, azidentity-*.mod the older ones (go build -modfile).
//
//	goclient CREDENTIAL RESOURCE [SELECTOR VALUE]
//
// CREDENTIAL is mi (ManagedIdentityCredential), default
// (DefaultAzureCredential) or chain (the first, then one that always has a token).
package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// report is what the tests read. The token itself is not in it.
type report struct {
	OK       bool      `json:"ok"`
	Error    string    `json:"error,omitempty"`
	Digest   string    `json:"digest,omitempty"` // SHA-256 of the token
	Claims   claims    `json:"claims"`
	Expires  time.Time `json:"expires"`
	Requests int64     `json:"requests"`
	Next     bool      `json:"next,omitempty"` // the chain went on
}

type claims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"`
}

// counter counts requests on the wire; it changes none.
type counter struct{ n atomic.Int64 }

func (c *counter) Do(req *policy.Request) (*http.Response, error) {
	c.n.Add(1)
	return req.Next()
}

// next is the last of a chain: reached or not, that is the question.
type next struct{ reached bool }

func (n *next) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	n.reached = true
	return azcore.AccessToken{Token: "next", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func main() {
	var seen counter
	var end next
	r := report{}
	token, err := ask(os.Args[1:], azcore.ClientOptions{PerRetryPolicies: []policy.Policy{&seen}}, &end)
	r.Requests, r.Next, r.OK = seen.n.Load(), end.reached, err == nil
	if err != nil {
		r.Error = err.Error()
	} else {
		sum := sha256.Sum256([]byte(token.Token))
		r.Digest, r.Expires, r.Claims = hex.EncodeToString(sum[:]), token.ExpiresOn.UTC(), claimsOf(token.Token)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(args []string, o azcore.ClientOptions, end *next) (azcore.AccessToken, error) {
	var selector azidentity.ManagedIDKind
	if len(args) > 2 {
		selector = selectorOf(args[2], args[3])
	}
	credential, err := credentialOf(args[0], selector, o, end)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{args[1] + "/.default"}})
}

func selectorOf(kind, value string) azidentity.ManagedIDKind {
	switch kind {
	case "client_id":
		return azidentity.ClientID(value)
	case "object_id":
		return objectID(value)
	}
	return azidentity.ResourceID(value)
}

func credentialOf(kind string, selector azidentity.ManagedIDKind, o azcore.ClientOptions, end *next) (azcore.TokenCredential, error) {
	if kind == "default" {
		return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: o})
	}
	mi, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: o, ID: selector})
	if err != nil || kind == "mi" {
		return mi, err
	}
	return azidentity.NewChainedTokenCredential([]azcore.TokenCredential{mi, end}, nil)
}

// claimsOf reads a JWT without verifying it.
func claimsOf(token string) claims {
	var c claims
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if raw, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(raw, &c)
		}
	}
	return c
}
