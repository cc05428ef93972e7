//go:build linux

// Command floor is the least Go program that does the endpoint's visible work:
// net/http on loopback, one token in memory, one file for each challenge. The
// file appears complete, as clients need it: unnamed, written, given its mode,
// linked; and is unlinked before the answer. It has no guard, no limit, no peer
// look-up, no access check, no watch and no clean-up. Beside it the benchmarks
// show what Postern's checks cost.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	addr := flag.String("addr", "", "listen address")
	dir := flag.String("dir", "", "directory for challenge files, on the same file system as the agent's")
	size := flag.Int("token", 1200, "bytes of the token")
	flag.Parse()
	held, err := unix.Open(*dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", *dir, err)
		os.Exit(1)
	}
	f := &floor{dir: *dir, held: held, token: strings.Repeat("a", *size), live: map[string]string{}}
	panic(http.ListenAndServe(*addr, f))
}

type floor struct {
	dir, token string
	held       int // descriptor of dir
	mu         sync.Mutex
	live       map[string]string // secret to name of the file
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
			_ = unix.Unlinkat(f.held, file, 0)
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
	file := secret[:32] + ".key"
	if err := f.write(file, secret); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	f.mu.Lock()
	f.live[secret] = file
	f.mu.Unlock()
	w.Header().Set("Www-Authenticate", "Basic realm="+filepath.Join(f.dir, file))
	w.WriteHeader(http.StatusUnauthorized)
}

// write makes a file that nobody sees before it is complete.
func (f *floor) write(name, content string) error {
	fd, err := unix.Openat(f.held, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(content)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, 0o440); err != nil {
		return err
	}
	if err := unix.Linkat(fd, "", f.held, name, unix.AT_EMPTY_PATH); err != unix.ENOENT {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), f.held, name, unix.AT_SYMLINK_FOLLOW)
}
