package authoritytest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is how much a direction holds before its writer waits. net.Pipe
// holds nothing, so that two sides which both end a TLS handshake with words of
// their own wait for each other for ever; TCP does not do that.
const pipeBuffer = 64 << 10

// stream is one direction. Its waits end in a synctest bubble.
type stream struct {
	mu       sync.Mutex
	moved    *sync.Cond
	data     []byte
	ended    bool // the writer closed: EOF after the data
	broken   bool // the reader closed: writes fail, but for the first
	told     bool // the writer has been told so
	readEnd  limit
	writeEnd limit
}

// limit is a deadline.
type limit struct {
	timer  *time.Timer
	passed bool
}

func newStream() *stream {
	s := new(stream)
	s.moved = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.broken:
			return 0, net.ErrClosed
		case s.readEnd.passed:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case len(s.data) > 0:
			n := copy(b, s.data)
			s.data = s.data[n:]
			s.moved.Broadcast()
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		s.moved.Wait()
	}
}

func (s *stream) write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.ended:
			return n, net.ErrClosed
		case s.broken && s.told:
			return n, syscall.EPIPE
		case s.broken:
			// TCP takes what is written after the other end has closed, and
			// learns from the answer to it that nobody is there.
			s.told = true
			return n + len(b), nil
		case s.writeEnd.passed:
			return n, os.ErrDeadlineExceeded
		case len(b) == 0:
			return n, nil
		}
		if room := min(pipeBuffer-len(s.data), len(b)); room > 0 {
			s.data = append(s.data, b[:room]...)
			b, n = b[room:], n+room
			s.moved.Broadcast()
			continue
		}
		s.moved.Wait()
	}
}

// end closes one side of the stream.
func (s *stream) end(side *bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*side = true
	s.stop(&s.readEnd)
	s.stop(&s.writeEnd)
	s.moved.Broadcast()
}

func (s *stream) stop(l *limit) {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

func (s *stream) until(l *limit, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(l)
	l.passed = false
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		l.passed = true
	default:
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if l.timer == timer { // it was not replaced while it fired
				l.passed = true
				s.moved.Broadcast()
			}
		})
		l.timer = timer
	}
	s.moved.Broadcast()
}

// pipeConn is one end of a connection.
type pipeConn struct {
	in, out       *stream
	local, remote net.Addr
}

func newPipe(client, server net.Addr) (ours, theirs net.Conn) {
	up, down := newStream(), newStream()
	return &pipeConn{in: down, out: up, local: client, remote: server}, &pipeConn{in: up, out: down, local: server, remote: client}
}

// Read implements net.Conn.
func (c *pipeConn) Read(b []byte) (int, error) { return c.op("read")(c.in.read(b)) }

// Write implements net.Conn.
func (c *pipeConn) Write(b []byte) (int, error) { return c.op("write")(c.out.write(b)) }

// op words errors as the net package does; EOF stays bare.
func (c *pipeConn) op(name string) func(int, error) (int, error) {
	return func(n int, err error) (int, error) {
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		return n, &net.OpError{Op: name, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
	}
}

// Close implements net.Conn: what was written still arrives, as with TCP.
func (c *pipeConn) Close() error {
	c.out.end(&c.out.ended)
	c.in.end(&c.in.broken)
	return nil
}

// LocalAddr implements net.Conn.
func (c *pipeConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *pipeConn) SetDeadline(t time.Time) error {
	c.in.until(&c.in.readEnd, t)
	c.out.until(&c.out.writeEnd, t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.in.until(&c.in.readEnd, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.out.until(&c.out.writeEnd, t)
	return nil
}
