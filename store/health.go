package store

import "time"

// Modes of a file.
const (
	ModeDisk     = "disk"      // normal
	ModeReadOnly = "read-only" // can be read, not written at present
	ModeMemory   = "memory"    // nothing on the disk is in use; it is tried again
	ModeClosed   = "closed"    // or not there yet
)

// Health is how a file stands, for status, metrics and check.
type Health struct {
	Path         string
	Mode         string    // ModeDisk, ModeReadOnly, ModeMemory, ModeClosed
	Problem      string    // what is wrong, empty if nothing is
	Fix          string    // one command, where there is one
	Bytes        int64     // size of the file
	Written      int64     // bytes handed to the file system since start: the flash budget
	WrittenToday int64     // of these, since midnight UTC
	Recovered    string    // the last recovery since start: what was done, and why
	RecoveredAt  time.Time // zero if there was none
	Generation   uint64    // of the last acknowledged commit
	Dropped      int       // values that were not authentic, or had no room, since start
	Protection   string    // of the key: "file", "tpm", "credential", "dpapi"
}

// Health returns how the file stands. It touches no disk but for the size.
func (d *DB) Health() Health {
	d.state.RLock()
	defer d.state.RUnlock()
	h := d.health
	h.Generation = d.last.generation
	if d.file != nil {
		h.Bytes = d.file.size()
	}
	if d.key != nil {
		h.Protection = d.key.Protection()
	}
	if d.day != d.today() {
		h.WrittenToday = 0
	}
	return h
}

func (d *DB) today() string { return d.o.Now().UTC().Format(time.DateOnly) }

// spent counts bytes that were written outside a commit.
func (d *DB) spent(bytes int64) {
	d.state.Lock()
	defer d.state.Unlock()
	d.wrote(bytes)
}

// wrote needs state.
func (d *DB) wrote(bytes int64) {
	if today := d.today(); d.day != today {
		d.day, d.health.WrittenToday = today, 0
	}
	d.health.Written += bytes
	d.health.WrittenToday += bytes
}
