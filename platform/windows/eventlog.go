//go:build windows

package windows

import (
	"bytes"
	"fmt"
	"io"

	"golang.org/x/sys/windows/svc/eventlog"
)

// EventSource is our name in the event log "Application".
const EventSource = "Postern"

// eventID is the only number until there is a message file.
const eventID = 1

// EventLog is an io.WriteCloser that puts each line of an slog text or JSON
// handler into the event log, at the level that stands in it.
type EventLog struct {
	log *eventlog.Log
}

var _ io.WriteCloser = (*EventLog)(nil)

// OpenEventLog opens the source that InstallService registered.
func OpenEventLog() (*EventLog, error) {
	l, err := eventlog.Open(EventSource)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	return &EventLog{l}, nil
}

// Write reports one line. It is safe for concurrent use.
func (e *EventLog) Write(line []byte) (int, error) {
	report := e.log.Info
	switch {
	case bytes.Contains(line, []byte("level=ERROR")), bytes.Contains(line, []byte(`"level":"ERROR"`)):
		report = e.log.Error
	case bytes.Contains(line, []byte("level=WARN")), bytes.Contains(line, []byte(`"level":"WARN"`)):
		report = e.log.Warning
	}
	text := bytes.TrimRight(bytes.ReplaceAll(line, []byte{0}, nil), "\n") // a zero byte would end it early
	if err := report(eventID, string(text)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// Close closes the source.
func (e *EventLog) Close() error { return e.log.Close() }
