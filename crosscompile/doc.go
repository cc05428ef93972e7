// Package crosscompile builds Postern for every target, keeps the sizes within
// their budget, and proves that a build can be repeated to the byte. It is
// used by tests and by the commands below it; nothing in the product imports it.
package crosscompile
