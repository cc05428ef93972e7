// Package planted fails in the ways that the runner must notice.
package planted

func word() string { return "page" }
