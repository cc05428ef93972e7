package credential

import (
	"context"
	"testing"

	"postern/store"
)

// TestRedialMakesTheDriverAnew: whom it believes may have changed.
func TestRedialMakesTheDriverAnew(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		dialled := 0
		w.options = func(o *Options) {
			dial := o.Dial
			o.Dial = func(rec store.DeviceRecord) (Authority, error) {
				dialled++
				return dial(rec)
			}
		}
		w.open()
		w.connect()
		for _, want := range []int{1, 1, 2, 2} {
			if want == 2 && dialled == 1 {
				w.Redial()
			}
			must(t, w.Sync(context.Background()))
			if dialled != want {
				t.Errorf("the driver was made %d times, want %d", dialled, want)
			}
		}
	})
}
