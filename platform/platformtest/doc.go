// Package platformtest holds the suite that every platform.Host must pass, and
// Sim, a Host whose clock, peers, network and reboots are the test's to command.
//
// Run is the contract of the interface and fits every implementation, Sim
// included. RunHostile is what the real ones must withstand besides: links,
// fifos, foreign owners, ACLs that the mode does not show. It is imported by
// tests only.
package platformtest
