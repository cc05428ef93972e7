package main

import (
	"bytes"
	"io"
)

// journal puts the severity before each line, as the journal reads it from the
// streams of a unit (sd-daemon(3)). slog writes a line at a time, and without
// the time the level comes first.
type journal struct{ w io.Writer }

func (j journal) Write(line []byte) (int, error) {
	if _, err := j.w.Write(append([]byte{'<', severity(line), '>'}, line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// severity is the level of a line by syslog's numbers.
func severity(line []byte) byte {
	line = bytes.TrimPrefix(line, []byte(`{"level":"`)) // log = "json"
	line = bytes.TrimPrefix(line, []byte("level="))
	switch {
	case bytes.HasPrefix(line, []byte("ERROR")):
		return '3'
	case bytes.HasPrefix(line, []byte("WARN")):
		return '4'
	case bytes.HasPrefix(line, []byte("DEBUG")):
		return '7'
	}
	return '6'
}
