package authoritytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a connection over a Net.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	network := new(Net)
	l := network.Listen("a.test:1")
	type accepted struct {
		conn net.Conn
		err  error
	}
	got := make(chan accepted)
	go func() {
		conn, err := l.Accept()
		got <- accepted{conn, err}
	}()
	client, err := network.Dial(t.Context(), "tcp", "a.test:1")
	if err != nil {
		t.Fatal(err)
	}
	a := <-got
	if a.err != nil {
		t.Fatal(a.err)
	}
	return client, a.conn
}

func TestWhatWasWrittenArrivesAlsoAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(server)
		if err != nil || string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
		// As with TCP, the first word to somebody who has left is taken.
		if n, err := server.Write([]byte("a")); n != 1 || err != nil {
			t.Errorf("first: %d, %v", n, err)
		}
		if _, err := server.Write([]byte("b")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("second: %v", err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
		if _, err := client.Write([]byte("c")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
	})
}

func TestWritersWaitForReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		large := bytes.Repeat([]byte("0123456789"), 30_000)
		done := make(chan error, 1)
		go func() {
			_, err := client.Write(large)
			done <- errors.Join(err, client.Close())
		}()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("300 kB were taken at once (%v)", err)
		default:
		}
		got, err := io.ReadAll(server)
		if err != nil || !bytes.Equal(got, large) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestDeadlinesEndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		start := time.Now()
		for i, set := range []func(time.Time) error{client.SetDeadline, client.SetReadDeadline} {
			if err := set(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			_, err := client.Read(make([]byte, 1))
			if want := time.Duration(i+1) * time.Minute; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != want {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		}
		if err := client.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, func() { _, _ = server.Write([]byte("x")) })
		if n, err := client.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("without a deadline: %v", err)
		}
		if err := server.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Write([]byte("y")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a deadline that has passed: %v", err)
		}
	})
}

func TestDialTellsNamesFromRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(Net)
		_, err := network.Dial(t.Context(), "tcp", "a.test:1")
		var dns *net.DNSError
		if !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("no such name: %v", err)
		}
		l := network.Listen("a.test:1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := network.Dial(ctx, "tcp", "a.test:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody accepts: %v", err)
		}
		for range 2 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := network.Dial(t.Context(), "tcp", "a.test:1"); !errors.Is(err, errRefused) {
			t.Errorf("closed: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if got := network.Dialled(); len(got) != 3 {
			t.Errorf("dialled %v", got)
		}
	})
}
