package lifecycle

import "time"

// Remaining is how long a token still lives: the smallest of what the wall
// clock and the boot-time clock say and never more than its whole life
// (expires minus issuedWall), never less than 0.
//
// issuedWall, issuedBoot and bootID are our clocks when the answer came, and
// issuedTrusted whether the wall clock could be believed then. The boot-time
// clock counts when the device has not been restarted since; the wall clock
// when it could be believed then and can be believed now. Together they answer
// for a suspend, a virtual machine that was paused, and a clock that was set.
//
// proven is false when neither counts: then the duration is only what the wall
// clock claims, and a token must not be handed out on its word in
// ClockUntrusted (State.ServesCached).
func Remaining(issuedWall, expires time.Time, issuedBoot time.Duration, bootID string, now Instant, issuedTrusted bool) (left time.Duration, proven bool) {
	life := expires.Sub(issuedWall)
	left = life
	if bootID != "" && bootID == now.BootID && now.Boot >= issuedBoot {
		left = life - (now.Boot - issuedBoot)
		proven = true
	}
	byWall := issuedTrusted && now.Trusted
	if byWall || !proven {
		left = min(left, expires.Sub(now.Wall))
	}
	return max(left, 0), proven || byWall
}
