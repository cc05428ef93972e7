//go:build linux

package qemu

import "sync"

// queue hands on messages without a bound, so that a guest is never held up by
// a test that is not listening.
type queue struct {
	out  chan Message
	mu   sync.Mutex
	some *sync.Cond
	list []Message
	end  bool
}

// newQueue starts the goroutine that fills out; it lives until everything was read or close was called and nobody reads.
func newQueue() *queue {
	q := &queue{out: make(chan Message, 1024)}
	q.some = sync.NewCond(&q.mu)
	go q.pump()
	return q
}

func (q *queue) put(m Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, m)
	q.some.Signal()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end = true
	q.some.Signal()
}

func (q *queue) pump() {
	defer close(q.out)
	for {
		q.mu.Lock()
		for len(q.list) == 0 && !q.end {
			q.some.Wait()
		}
		if len(q.list) == 0 {
			q.mu.Unlock()
			return
		}
		m := q.list[0]
		q.list = q.list[1:]
		q.mu.Unlock()
		q.out <- m
	}
}
