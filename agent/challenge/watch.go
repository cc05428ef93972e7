package challenge

import (
	"log/slog"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// watcher tells that something happened below some paths, not what: every event
// leads to the same rescan. Events arrive on a plain channel, so that the loop
// can be tested where a live watcher cannot run.
type watcher interface {
	// arm watches what stands at the paths now. It is called again and again: a
	// hint may end the watch.
	arm(paths ...string) error
	events() <-chan struct{}
	close() error
}

// watch opens the system's watcher. This file is the only user of fsnotify.
func watch() (watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	n := &notify{w: w, ch: make(chan struct{}, 1)}
	go n.forward()
	return n, nil
}

// notify reduces events and errors (an overflow is one) to hints. After an event
// it rests until arm is called again: each challenge causes events too, and
// waking for each one would be work within a handshake that nobody needs. Nothing
// is missed, since whoever arms compares the directory afterwards.
type notify struct {
	w  *fsnotify.Watcher
	ch chan struct{}
}

func (n *notify) forward() {
	for n.take() {
		for _, p := range n.w.WatchList() {
			_ = n.w.Remove(p) // it may be gone already, with its directory
		}
		select {
		case n.ch <- struct{}{}:
		default:
		}
	}
}

// take waits for an event or an error; false when there will be none.
func (n *notify) take() (open bool) {
	select {
	case _, open = <-n.w.Events:
	case _, open = <-n.w.Errors:
	}
	return open
}

func (n *notify) arm(paths ...string) error {
	var first error
	for _, p := range paths {
		if err := n.w.Add(p); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (n *notify) events() <-chan struct{} { return n.ch }

func (n *notify) close() error { return n.w.Close() }

// patrol keeps a watcher alive: without one (no inotify instance left) the
// loop polls every 30 s and tries again each time.
type patrol struct {
	open func() (watcher, error) // nil: never watch
	log  *slog.Logger
	w    watcher
	told bool
}

// arm watches the directory and its parent, for renames, mounts and new
// directories at the path. It returns watching, or why it does not.
func (e *patrol) arm(path string) string {
	if e.open == nil {
		return "polling every 30 s as configured"
	}
	if e.w == nil {
		w, err := e.open()
		if err != nil {
			return e.poll(err)
		}
		e.w = w
	}
	if err := e.w.arm(path, filepath.Dir(path)); err != nil {
		return e.poll(err)
	}
	e.told = false
	return watching
}

func (e *patrol) poll(err error) string {
	if !e.told {
		e.log.Warn("token directory is not watched: polling every 30 s", "reason", err)
		e.told = true
	}
	return "polling every 30 s: " + err.Error()
}

// events is nil, and so never ready, without a watcher.
func (e *patrol) events() <-chan struct{} {
	if e.w == nil {
		return nil
	}
	return e.w.events()
}

func (e *patrol) close() {
	if e.w == nil {
		return
	}
	if err := e.w.close(); err != nil {
		e.log.Debug("close the watcher", "reason", err)
	}
}
