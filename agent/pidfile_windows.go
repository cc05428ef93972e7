package main

import "io/fs"

// openLiterally has no meaning here.
const openLiterally = 0

// names is not asked here, where nobody starts the agent for another account.
func names(fs.FileInfo) uint64 { return 1 }
