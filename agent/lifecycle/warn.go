package lifecycle

import "time"

// warnDays are the days left at which a certificate is warned about.
var warnDays = [...]int{1, 3, 7, 14, 30}

// Warning says which warning a certificate deserves at now, a trusted reading
// of the wall clock: the smallest of 30, 14, 7, 3 and 1 that its days left do
// not exceed, or 0 for none; and when that answer changes by time alone, zero
// for never. A caller warns when days differs from the last time.
//
// A mark in the first half of a certificate's life does not count: there
// renewal is not even due, and a certificate of one hour is not in trouble for
// having less than a day. At NotAfter the state says Expired, and the warning is 0.
func Warning(notBefore, notAfter, now time.Time) (days int, next time.Time) {
	if !now.Before(notAfter) {
		return 0, time.Time{}
	}
	next = notAfter
	for _, n := range warnDays {
		mark := notAfter.Add(-time.Duration(n) * Day)
		if mark.Before(notBefore.Add(notAfter.Sub(notBefore) / 2)) {
			return 0, next.UTC()
		}
		if !now.Before(mark) {
			return n, next.UTC()
		}
		next = mark
	}
	return 0, next.UTC()
}
