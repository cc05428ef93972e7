package lifecycle

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"
)

// Day is 24 hours: certificates know no calendar.
const Day = 24 * time.Hour

const (
	longLife    = 90 * Day // the lifetime with a rule of its own
	longMargin  = 45 * Day // what remains of it when it is renewed
	lifeTrouble = Day      // authorities backdate NotBefore by a minute or so
)

// RenewAt says when a certificate is due for renewal: 45 days before the end
// of a 90-day certificate (a day more or less counts as 90), at half-life for
// any other, minus a jitter over a tenth of what then remains. The jitter
// depends on seed alone, which is device and identity, so that it can be
// computed again and again without creeping to its early edge
// (firmware-notes/lifecycle.md), and a fleet onboarded in one hour does not renew in one.
//
// The result lies between NotBefore and NotAfter. A certificate that ends
// before it begins is due at NotBefore.
func RenewAt(notBefore, notAfter time.Time, seed string) time.Time {
	life := notAfter.Sub(notBefore)
	if life <= 0 {
		return notBefore.UTC()
	}
	base := notBefore.Add(life / 2)
	if (life - longLife).Abs() <= lifeTrouble {
		base = notAfter.Add(-longMargin)
	}
	window := notAfter.Sub(base) / 10
	return base.Add(-stable(seed, window)).UTC()
}

// stable spreads seeds evenly over [0, window).
func stable(seed string, window time.Duration) time.Duration {
	sum := sha256.Sum256([]byte(seed))
	high, _ := bits.Mul64(binary.BigEndian.Uint64(sum[:8]), uint64(max(window, 0)))
	return time.Duration(high) //nolint:gosec // below window, which is a Duration
}

// Retry limits (firmware-notes/lifecycle.md).
const (
	RetryFloor   = 30 * time.Second // no two attempts are closer
	retryCap     = 6 * time.Hour
	retryCapWeek = 15 * time.Minute // in the last 7 days of the certificate
	retryCapDay  = time.Minute      // in the last day
)

// Backoff says how long to wait after the attempt-th failure in a row (1 is
// the first; less counts as 1) when the certificate has left to live. r is
// chance in [0,1); anything else counts as the nearest. The wait is spread
// evenly between the floor of 30 s and a ceiling that doubles from one minute
// to 6 h, to 15 min in the last 7 days, to 1 min in the last day.
func Backoff(attempt int, left time.Duration, r float64) time.Duration {
	ceiling := retryCap
	switch {
	case left <= Day:
		ceiling = retryCapDay
	case left <= 7*Day:
		ceiling = retryCapWeek
	}
	if shift := max(attempt, 1); shift < 10 { // 30 s << 10 is over 8 h
		ceiling = min(ceiling, RetryFloor<<shift)
	}
	return RetryFloor + fraction(ceiling-RetryFloor, r)
}

// Spread limits (firmware-notes/lifecycle.md).
const (
	shortOutage = time.Hour
	spreadShort = 10 * time.Second
	spreadLong  = 60 * time.Second
)

// Spread says how long background work waits when contact is regained after
// an outage: anything up to 10 s for less than an hour, up to 60 s for more.
// r is chance in [0,1). Callers that wait are served first and do not spread.
func Spread(outage time.Duration, r float64) time.Duration {
	if outage < shortOutage {
		return fraction(spreadShort, r)
	}
	return fraction(spreadLong, r)
}

const (
	heartbeat       = 5 * time.Minute
	heartbeatSpread = heartbeat / 5 // 10 % either way
)

// Heartbeat is the time to the next heartbeat: 5 min, 10 % more or less. r is
// chance in [0,1).
func Heartbeat(r float64) time.Duration {
	return heartbeat - heartbeatSpread/2 + fraction(heartbeatSpread, r)
}

const (
	longToken  = 2 * time.Hour
	warmMargin = 10 * time.Minute
)

// KeepWarm says how long after its issue a token that is in use is refreshed
// in the background, given its whole life: at half-life if it lives over 2 h,
// else 10 minutes before its end, but never before half-life.
func KeepWarm(life time.Duration) time.Duration {
	if life > longToken {
		return life / 2
	}
	return max(life-warmMargin, life/2, 0)
}

// fraction is r of d, for r in [0,1]; chance that is no number is none.
func fraction(d time.Duration, r float64) time.Duration {
	if !(r > 0) { //nolint:staticcheck // NaN is not greater than 0 either
		return 0
	}
	return time.Duration(float64(d) * min(r, 1))
}
