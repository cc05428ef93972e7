// Command floor is the least Go program that does the endpoint's visible work:
// net/http on loopback, one token in memory, one bbolt-free file per challenge.
// It has no guard, no limit, no peer look-up and no clean-up. Beside it the
// benchmarks show what Postern's checks cost.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

func main() {
	addr := flag.String("addr", "", "listen address")
	dir := flag.String("dir", "", "directory for challenge files, on the same file system as the agent's")
	size := flag.Int("token", 1200, "bytes of the token")
	flag.Parse()
	f := &floor{dir: *dir, token: strings.Repeat("a", *size), live: map[string]string{}}
	panic(http.ListenAndServe(*addr, f))
}

type floor struct {
	dir, token string
	mu         sync.Mutex
	live       map[string]string // secret to file
}

// ServeHTTP answers as the flavour of the path wants.
func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata") != "true" {
		http.Error(w, "Metadata", http.StatusBadRequest)
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/arc") {
		f.answer(w)
		return
	}
	if secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic "); ok {
		f.mu.Lock()
		file, ok := f.live[secret]
		delete(f.live, secret)
		f.mu.Unlock()
		if ok {
			_ = os.Remove(file)
			f.answer(w)
			return
		}
	}
	f.challenge(w)
}

func (f *floor) answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"access_token":"%s","expires_in":"3599","expires_on":"%d","resource":"https://vault.azure.net","token_type":"Bearer"}`,
		f.token, time.Now().Unix()+3599)
}

func (f *floor) challenge(w http.ResponseWriter) {
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	secret := hex.EncodeToString(raw[:])
	file := filepath.Join(f.dir, secret[:32]+".key")
	if err := os.WriteFile(file, []byte(secret), 0o640); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	f.mu.Lock()
	f.live[secret] = file
	f.mu.Unlock()
	w.Header().Set("Www-Authenticate", "Basic realm="+file)
	w.WriteHeader(http.StatusUnauthorized)
}
