package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// hearSignals takes the signals that ask a running agent for something, until
// the returned function is called.
func hearSignals() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGHUP)
	if dumpSignal > 0 {
		signal.Notify(signals, dumpSignal)
	}
	return signals, func() { signal.Stop(signals) }
}

// heed does what a signal asks for.
func (g *graph) heed(ctx context.Context, asked os.Signal) {
	if asked == dumpSignal {
		g.dump(ctx)
		return
	}
	g.reload()
}

// dump writes the state into the log, once, as postern status shows it to an
// administrator, whatever the log's level: somebody asked for it. No room puts
// a secret into its status.
func (g *graph) dump(ctx context.Context) {
	doc, err := json.Marshal(g.Status())
	if err != nil {
		g.log.Error("the state cannot be written down", "reason", err)
		return
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	level := slog.LevelInfo
	for level < slog.LevelError && !g.log.Enabled(ctx, level) {
		level += slog.LevelWarn - slog.LevelInfo
	}
	g.log.Log(ctx, level, "state", "event", "state-dump", "status", string(doc), "goroutines", runtime.NumGoroutine(),
		"heap_bytes", memory.HeapAlloc, "connections", g.endpoint.Connections())
}
