package authority_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/agent/authority"
	"postern/agent/authority/authoritytest"
	"postern/agent/lifecycle"
)

func TestUP7RedirectsAreNotFollowed(t *testing.T) {
	for location, named := range map[string]string{
		"http://" + authoritytest.Host + "/x": "http://" + authoritytest.Host,
		"https://other.test/x":                "https://other.test",
		"//other.test/x":                      "https://other.test",
		"file:///etc/shadow":                  "file:",
		"/elsewhere":                          "https://" + authoritytest.Host,
		"https://\x7f/":                       "Location",
	} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			inWorld(t, func(t *testing.T, w world) {
				calls := 0
				w.serve(authoritytest.Host, func(rw http.ResponseWriter, _ *http.Request) {
					calls++
					rw.Header()["Location"] = []string{location}
					rw.WriteHeader(status)
				})
				w.serve("other.test", func(http.ResponseWriter, *http.Request) { t.Error("it was followed") })
				_, err := w.get(authority.NewClient(w.Config()), base)
				w.fails(err, lifecycle.ClassTransient, named)
				if calls != 1 {
					t.Errorf("%d to %q: %d calls", status, location, calls)
				}
			})
		}
	}
}

func TestEncodedAnswerIsRefusedAndNoneIsAskedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		encoding := "gzip"
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "" {
				t.Errorf("Accept-Encoding: %s", got)
			}
			if r.ProtoMajor != 1 || r.TLS.NegotiatedProtocol == "h2" {
				t.Errorf("spoke %s", r.Proto)
			}
			if got := r.Header.Get("User-Agent"); got != "postern" {
				t.Errorf("User-Agent: %s", got)
			}
			rw.Header().Set("Content-Encoding", encoding)
			_, _ = io.WriteString(rw, "x")
		})
		for _, encoding = range []string{"gzip", "deflate", "br", "x\tcanary"} {
			_, err := w.get(authority.NewClient(w.Config()), base)
			w.fails(err, lifecycle.ClassTransient, "encoded")
		}
		encoding = "identity"
		if resp, err := w.get(authority.NewClient(w.Config()), base); err != nil || string(resp.Body) != "x" {
			t.Errorf("got %v, %v", resp, err)
		}
	})
}

func TestUP6BodyIsReadToItsLimitAndNoFurther(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		size := authority.BodyLimit
		sent := 0
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 1024)
			for sent = 0; sent < size; sent += len(chunk) {
				if _, err := rw.Write(chunk); err != nil {
					return
				}
			}
		})
		if resp, err := w.get(authority.NewClient(w.Config()), base); err != nil || len(resp.Body) != size {
			t.Errorf("at the limit: %v", err)
		}
		size = 10 << 30
		_, err := w.get(authority.NewClient(w.Config()), base)
		w.fails(err, lifecycle.ClassTransient, "more than 65536 bytes")
		synctest.Wait()
		if sent > 1<<20 {
			t.Errorf("%d bytes were taken", sent)
		}
	})
}

func TestHeaderIsReadToItsLimit(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		size := 30 << 10
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("X-Long", strings.Repeat("a", size))
		})
		if _, err := w.get(authority.NewClient(w.Config()), base); err != nil {
			t.Errorf("30 KiB: %v", err)
		}
		size = authority.HeaderLimit + 1
		_, err := w.get(authority.NewClient(w.Config()), base)
		w.fails(err, lifecycle.ClassTransient, "32768 bytes")
	})
}

// UP4, and what else may become of a connection.
func TestUP4BrokenAnswersAreTransient(t *testing.T) {
	for name, c := range map[string]struct{ answer, words string }{
		"cut before the answer":  {"", "broke off"},
		"cut in the header":      {"HTTP/1.1 200 OK\r\nContent-Le", "connection broken"},
		"body too short":         {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "broke off after 2 bytes"},
		"chunk cut":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "broke off after 2 bytes"},
		"chunk without a number": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "after 0 bytes"},
		"not HTTP":               {"SSH-2.0-OpenSSH\r\n\r\n", "malformed"},
		"status is no number":    {"HTTP/1.1 abc OK\r\n\r\n", "malformed"},
		"two lengths":            {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", ""},
		"negative length":        {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", ""},
		"HTTP/2 preface":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w world) {
				w.serve(authoritytest.Host, func(rw http.ResponseWriter, _ *http.Request) {
					conn, _, err := http.NewResponseController(rw).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.WriteString(conn, c.answer)
					_ = conn.Close()
				})
				_, err := w.get(authority.NewClient(w.Config()), base)
				w.fails(err, lifecycle.ClassTransient, c.words)
				if strings.ContainsAny(err.Error(), "\r\n") {
					t.Errorf("more than one line: %q", err)
				}
			})
		})
	}
}

func TestUP2SlowAuthoritiesAreGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		dial   func(ctx context.Context, network, address string) (net.Conn, error)
		answer func(rw http.ResponseWriter, r *http.Request)
		after  time.Duration
		words  string
	}{
		"black hole": {dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, after: authority.ConnectTimeout, words: "no connection within 5s"},
		"accepted and silent": {answer: func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, after: authority.HeaderTimeout, words: "no answer in time"},
		"a byte a second": {answer: func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(rw, "a")
				_ = http.NewResponseController(rw).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
		}, after: authority.CallTimeout, words: "no answer in time after 2"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w world) {
				w.serve(authoritytest.Host, c.answer)
				config := w.Config()
				if c.dial != nil {
					config.Dial = c.dial
				}
				start := time.Now()
				_, err := w.get(authority.NewClient(config), base)
				w.fails(err, lifecycle.ClassTransient, c.words)
				if got := time.Since(start); got != c.after {
					t.Errorf("given up after %v, want %v", got, c.after)
				}
			})
		})
	}
}

func TestUP1NameThatDoesNotExist(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		client := authority.NewClient(w.Config())
		_, err := w.get(client, base)
		w.fails(err, lifecycle.ClassTransient, "test: get: connect authority.test:443: there is no host of that name")
		// The next call resolves anew.
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		if _, err := w.get(client, base); err != nil {
			t.Error(err)
		}
		config := w.Config()
		for words, cause := range map[string]error{
			"the name look-up failed: server misbehaving": &net.DNSError{Err: "server misbehaving", Name: "x", IsTemporary: true},
			"connection refused":                          errors.New("connection refused"),
		} {
			config.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, cause }
			_, err := w.get(authority.NewClient(config), base)
			w.fails(err, lifecycle.ClassTransient, words)
			if !errors.Is(err, cause) {
				t.Errorf("the cause is lost: %v", err)
			}
		}
	})
}

// TestFailedConnectionIsWordedOnce: around its cause net puts the operation and
// the address once more.
func TestFailedConnectionIsWordedOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		config := w.Config()
		cause := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		config.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, cause }
		_, err := w.get(authority.NewClient(config), base)
		if want := "test: get: connect authority.test:443: connection refused"; err == nil || err.Error() != want || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}

func TestCallerThatHangsUpIsToldApart(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stop, give := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, give)
		for want, ctx := range map[error]context.Context{context.DeadlineExceeded: ctx, context.Canceled: stop} {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = authority.Do(authority.NewClient(w.Config()), req, "test", 10)
			if !errors.Is(err, want) || lifecycle.ClassOf(err) != lifecycle.ClassTransient {
				t.Errorf("got %v, want %v", err, want)
			}
			words := map[error]string{context.Canceled: "the call was given up", context.DeadlineExceeded: "no answer in time"}[want]
			w.fails(err, lifecycle.ClassTransient, words)
		}
	})
}

// UP1: an authority that moved is found under its new address as soon as the
// connection is over, which is kept for 15 s.
func TestUP1NameIsLookedUpForEachConnection(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		w.serve(authoritytest.Host, func(http.ResponseWriter, *http.Request) {})
		config := w.Config()
		var dialled []string
		dial := config.Dial
		config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			return dial(ctx, network, address)
		}
		client := authority.NewClient(config)
		defer client.CloseIdleConnections()
		for _, pause := range []time.Duration{0, 10 * time.Second, 16 * time.Second, time.Hour} {
			time.Sleep(pause)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := authority.Do(client, req, "test: get", authority.BodyLimit); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{authoritytest.Host + ":443", authoritytest.Host + ":443", authoritytest.Host + ":443"}; !slices.Equal(dialled, want) {
			t.Errorf("dialled %q, want %q: by name, once more after each long pause", dialled, want)
		}
	})
}

// UP11. The standard dialer falls back to the other family; nothing here must
// get in its way. localhost is both families where the system has both.
func TestUP11OtherFamilyIsTried(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	clock := authoritytest.NewTime()
	pki := authoritytest.NewPKI(t, time.Now())
	config := &tlsServer{pki.Server("localhost")}
	stop := authoritytest.Serve(t, l, config.tls(), http.NotFoundHandler())
	defer stop()
	client := authority.NewClient(authority.Config{Clock: clock.Clock(), Roots: pki.Pool()})
	defer client.CloseIdleConnections()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://localhost:"+port, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := authority.Do(client, req, "test", 1024); err != nil || resp.Status != http.StatusNotFound {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestID3RetryAfterIsReadClampedOrIgnored(t *testing.T) {
	date := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return date.Add(d).Format(http.TimeFormat) }
	for value, want := range map[string]time.Duration{
		"0": 0, "1": time.Second, "120": 2 * time.Minute, " 7 ": 7 * time.Second,
		"21600": 6 * time.Hour, "21601": 6 * time.Hour, "1000000000": 6 * time.Hour,
		strings.Repeat("9", 100): 6 * time.Hour,
		at(90 * time.Second):     90 * time.Second, at(-time.Hour): 0, at(1000 * time.Hour): 6 * time.Hour,
		"": 0, "-1": 0, "+1": 0, "1.5": 0, "soon": 0, "1e3": 0, "0x10": 0, "١": 0, "5 seconds": 0,
	} {
		r := authority.Response{Header: http.Header{"Retry-After": {value}}, Date: date}
		if got := r.RetryAfter(); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
	undated := authority.Response{Header: http.Header{"Retry-After": {at(time.Minute)}}}
	if got := undated.RetryAfter(); got != 0 {
		t.Errorf("a date without a Date to compare it with: %v", got)
	}
	if got := new(authority.Response).RetryAfter(); got != 0 {
		t.Errorf("no header: %v", got)
	}
}

func TestDateAndMediaTypeOfAnAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w world) {
		date := "Sat, 01 Jan 2000 00:00:05 GMT"
		w.serve(authoritytest.Host, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Date"] = []string{date}
			rw.Header().Set("Content-Type", "Application/JSON; charset=utf-8")
		})
		resp, err := w.get(authority.NewClient(w.Config()), base)
		if err != nil || !resp.Date.Equal(time.Date(2000, 1, 1, 0, 0, 5, 0, time.UTC)) || resp.MediaType() != "application/json" {
			t.Errorf("got %v, %q, %v", resp.Date, resp.MediaType(), err)
		}
		for _, date = range []string{"", "yesterday", "2000-01-01"} {
			resp, err := w.get(authority.NewClient(w.Config()), base)
			if err != nil || !resp.Date.IsZero() {
				t.Errorf("%q: got %v, %v", date, resp.Date, err)
			}
		}
	})
}

func TestForeignTextIsOneShortPrintableLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                             "plain",
		"a\r\nb\x1b[31m\x00":                "a  b [31m",
		"caf\u00e9 \u4e2d":                  "caf\u00e9 \u4e2d",
		"\xff\xfe":                          "?",
		"over\u202eturned":                  "over turned",
		strings.Repeat("a", 300):            strings.Repeat("a", 256),
		strings.Repeat("\u00e9", 129) + "x": strings.Repeat("\u00e9", 128),
		"x" + strings.Repeat("\u00e9", 200): "x" + strings.Repeat("\u00e9", 127),
	} {
		if got := authority.Clean(in, authority.MaxText); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"0", "120", "Wed, 21 Oct 2015 07:28:00 GMT", "1e9", "99999999999999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		r := authority.Response{Header: http.Header{"Retry-After": {value}}, Date: time.Date(2015, 10, 21, 7, 0, 0, 0, time.UTC)}
		if got := r.RetryAfter(); got < 0 || got > authority.MaxRetryAfter {
			t.Fatal(got)
		}
		if got := authority.Clean(value, 256); len(got) > 256 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' }) {
			t.Fatalf("%q", got)
		}
	})
}
