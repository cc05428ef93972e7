package credential

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/agent/lifecycle"
	"postern/store"
)

// maxIdentities is how many identities a device may have (firmware-notes/limits.md);
// more are refused at assignment and named in Warnings.
const maxIdentities = 64

// Options are what a Device works with.
type Options struct {
	File    *store.IdentityFile // not nil
	Clock   *lifecycle.Clock    // not nil
	Contact *lifecycle.Contact  // nil: one of its own
	// Dial builds the driver for the authority of the record, which is enrolled
	// or about to be. It must not contact it.
	Dial func(store.DeviceRecord) (Authority, error)
	// Probe asks the token issuer whether it still knows the credential; nil if
	// there is no way to ask. A Rejected identity is probed once an hour.
	Probe func(ctx context.Context, with *Credential) error
	// Fingerprint returns the hardware facts found now, "name=digest"; nil: none.
	Fingerprint  func() []string
	OfflineAfter time.Duration // 0: lifecycle.DefaultOfflineAfter
	Algorithm    string        // of new keys: AlgorithmEC (default), AlgorithmRSA
	// Protection is what seals the file the keys are in, for status: "file"
	// (default), "credential", "dpapi".
	Protection string
	Log        *slog.Logger // nil: discarded
	// Event is told what happens, outside all locks, from several goroutines.
	// It must not call Connect, Reconnect or Disconnect. nil: nobody is told.
	Event func(Event)
	// Static are identities given by configuration, for authorities that keep
	// no assignments. Without a certificate they are Unenrolled; assignments
	// never take one away.
	Static []Identity
}

// Device is all identities of this device. Safe for concurrent use.
type Device struct {
	o        Options
	file     identityFile
	clock    *lifecycle.Clock
	contact  *lifecycle.Contact
	log      *slog.Logger
	chance   func() float64                                // [0,1); a seam for tests
	generate func(algorithm string) (crypto.Signer, error) // a seam for tests
	tick     time.Duration                                 // maxTick; a seam for tests
	wake     chan struct{}
	crew     *crew

	// write is held while the file is changed and read back, so that memory
	// shows the commits in their order. Taken before mu.
	write sync.Mutex

	// mu guards what follows. It is never held across I/O or a call out.
	mu       sync.RWMutex
	dev      store.DeviceRecord
	enrolled bool     // there is a device record
	damaged  error    // why the file cannot be read
	exposure string   // what Expose was told and the file does not say yet
	parts    []string // the hardware as it was found at the start, or when a person spoke for it
	moved    bool
	holders  map[string]*Holder // by client id
	auth     Authority          // nil until dialled
	op       *BusyError         // what a person asked for and is under way
	beat     beat
	check    check
	notes    map[string]string // standing warnings by subject
}

// identityFile is *store.IdentityFile; tests wrap it to cut the power between
// any two writes.
type identityFile interface {
	Exists() bool
	Damaged() error
	Device() (store.DeviceRecord, error)
	Identities() ([]store.IdentityRecord, error)
	Update(func(*store.IdentityTx) error) error
	Check(context.Context) error
	Destroy() error
}

// Open reads the facts. It contacts nobody and does not fail for an identity
// that is damaged, moved or missing: that is a state. Errors are mistakes of
// the caller.
func Open(o Options) (*Device, error) {
	if o.File == nil {
		return nil, errors.New("credential: open: no file")
	}
	return open(o, o.File)
}

func open(o Options, file identityFile) (*Device, error) {
	if o.Clock == nil || o.Dial == nil {
		return nil, errors.New("credential: open: no clock or no way to dial the authority")
	}
	if o.Algorithm != "" && o.Algorithm != AlgorithmEC && o.Algorithm != AlgorithmRSA {
		return nil, fmt.Errorf("credential: key algorithm %q: want %s or %s", o.Algorithm, AlgorithmEC, AlgorithmRSA)
	}
	if o.Contact == nil {
		o.Contact = new(lifecycle.Contact)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Protection == "" {
		o.Protection = "file"
	}
	d := &Device{
		o: o, file: file, clock: o.Clock, contact: o.Contact, log: o.Log,
		chance: rand.Float64, generate: generate, tick: maxTick,
		wake: make(chan struct{}, 1), crew: newCrew(),
		holders: make(map[string]*Holder), notes: make(map[string]string),
	}
	d.findParts()
	d.write.Lock()
	defer d.write.Unlock()
	d.reload()
	d.beat.etag = d.dev.ETag
	return d, nil
}

// findParts looks at the hardware.
func (d *Device) findParts() []string {
	var found []string
	if d.o.Fingerprint != nil {
		found = d.o.Fingerprint()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts = found
	return found
}

// reload makes memory show what stands in the file. write is held.
func (d *Device) reload() {
	dev, records, err := d.read()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && dev == nil && d.enrolled {
		err = errGone
	}
	if err != nil {
		d.damaged = err // the holders stay as they are: it may heal
		return
	}
	d.damaged, d.enrolled, d.dev = nil, dev != nil, store.DeviceRecord{}
	if dev != nil {
		d.dev = *dev
		d.dev.Exposed = cmp.Or(dev.Exposed, d.exposure)
		d.clock.Raise(dev.Floor)
	}
	d.moved = d.enrolled && !lifecycle.SameHardware(d.dev.Fingerprint, d.parts)
	d.takeAll(records)
}

var errGone = errors.New("the identity file is gone")

// forget empties memory after the file was destroyed.
func (d *Device) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dev, d.enrolled, d.damaged, d.exposure, d.moved, d.auth = store.DeviceRecord{}, false, nil, "", false, nil
	d.beat = beat{}
	clear(d.notes)
	d.takeAll(nil)
}

// read returns what is stored; no device record and no error if nothing is.
func (d *Device) read() (*store.DeviceRecord, []store.IdentityRecord, error) {
	if err := d.file.Damaged(); err != nil {
		return nil, nil, err
	}
	if !d.file.Exists() {
		return nil, nil, nil
	}
	dev, err := d.file.Device()
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	records, err := d.file.Identities()
	return &dev, records, err
}

// takeAll makes the holders fit the records. mu is held.
func (d *Device) takeAll(records []store.IdentityRecord) {
	stale := maps.Clone(d.holders)
	configured := make(map[string]Identity)
	for _, id := range d.o.Static {
		configured[strings.ToLower(id.ClientID)] = lower(id)
	}
	seed := d.seed(records)
	for _, rec := range records {
		id := strings.ToLower(rec.ClientID)
		own, fixed := configured[id]
		d.holder(id).take(withFacts(rec, merge(identityOf(rec), own)), seed)
		d.holders[id].fixed = fixed
		delete(stale, id)
		delete(configured, id)
	}
	for id, own := range configured {
		d.holder(id).take(recordOf(own), "")
		d.holders[id].fixed = true
		delete(stale, id)
	}
	for id := range stale {
		d.holders[id].current.Store(nil)
		delete(d.holders, id)
		for _, subject := range []string{"expiring ", "retire "} {
			delete(d.notes, subject+id)
		}
	}
	for _, h := range d.holders {
		if c := h.Current(); c != nil {
			d.clock.Raise(c.Leaf().NotBefore)
		}
	}
}

func (d *Device) holder(id string) *Holder {
	h := d.holders[id]
	if h == nil {
		h = &Holder{id: id}
		d.holders[id] = h
	}
	return h
}

// seed is what spreads this device's renewals over the fleet's: something that
// no other device has and no renewal changes.
func (d *Device) seed(records []store.IdentityRecord) string {
	for _, rec := range records {
		if Kind(rec.Kind) == SystemAssigned {
			return rec.ClientID
		}
	}
	return strings.Join(d.dev.Fingerprint, " ")
}

// commit changes the file, the clock floor with it, and then shows memory what
// stands there: also after a failure, which may have happened after the commit
// itself. One commit and one backup copy.
func (d *Device) commit(edit func(*store.IdentityTx) error) error {
	d.write.Lock()
	defer d.write.Unlock()
	err := d.file.Update(func(tx *store.IdentityTx) error {
		if err := edit(tx); err != nil {
			return err
		}
		dev, err := tx.Device()
		if err != nil {
			return err
		}
		dev.Floor = d.clock.Floor()
		return tx.PutDevice(dev)
	})
	d.reload()
	return err
}

// change is commit for one identity's record. A record that is gone is store.ErrNotFound.
func (d *Device) change(id string, edit func(*store.IdentityRecord)) error {
	return d.commit(func(tx *store.IdentityTx) error {
		rec, err := tx.Identity(id)
		if err != nil {
			return err
		}
		edit(&rec)
		return tx.PutIdentity(rec)
	})
}

// changeDevice is commit for the device's own record.
func (d *Device) changeDevice(op string, edit func(*store.DeviceRecord)) error {
	err := d.commit(func(tx *store.IdentityTx) error {
		dev, err := tx.Device()
		if err != nil {
			return err
		}
		edit(&dev)
		return tx.PutDevice(dev)
	})
	if err != nil {
		return d.storeFailed(nil, op, err)
	}
	return nil
}

// nudge makes the loop look again now.
func (d *Device) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// begin starts an operation that needs the device for itself: background work
// is stopped, and a second operation is told about the first (ID9).
func (d *Device) begin(op string) (end func(), err error) {
	d.mu.Lock()
	if d.op != nil {
		defer d.mu.Unlock()
		return nil, &Problem{ID: "busy", Op: op, Fix: fixStatus, Err: d.op}
	}
	d.op = &BusyError{Op: op, PID: os.Getpid(), Since: d.clock.Now().Wall}
	d.mu.Unlock()
	resume := d.crew.pause()
	return func() {
		resume()
		d.mu.Lock()
		d.op = nil
		d.mu.Unlock()
		d.nudge()
	}, nil
}

// note keeps a warning for Warnings; an empty text takes it away. It reports
// whether the text is new.
func (d *Device) note(subject, text string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.notes[subject] == text {
		return false
	}
	if d.notes[subject] = text; text == "" {
		delete(d.notes, subject)
	}
	return true
}

// Warnings are what an operator should know and no state says, one line each,
// sorted: assignments that were refused, an authority restored from an old
// copy, certificates near their end, old certificates that could not be withdrawn.
func (d *Device) Warnings() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Sorted(maps.Values(d.notes))
}

// Enrolment returns the record of the device; false if it is not connected or
// the record cannot be read.
func (d *Device) Enrolment() (store.DeviceRecord, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.dev, d.enrolled
}
