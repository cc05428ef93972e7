// Package audit keeps the record of who took which token, and of what happened
// to the device's identities: a bounded ring in cache.db, one JSON document a
// record, each carrying the digest of the one before (schema postern.audit/1).
//
// Recording is cheap and never waits for the disk: equal repeats within a
// minute become one record with a count, and records ride on commits that
// others make. The room itself forces one at most hourly, after a state change,
// at the end, and for a denial at most every 15 minutes, so that a hostile
// caller cannot wear the card. What was recorded since the last commit is lost
// in a power cut; whoever cannot bear that ships the log, where each record
// appears at once.
//
// The chain shows whether records were changed, left out or put in between two
// of them. It is not signed: whoever can write the file can write a new chain.
// It proves something only against a record that was exported before.
//
// It decides nothing and imports no room that does; main turns their events
// into its own.
package audit
