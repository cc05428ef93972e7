package main

import "io/fs"

// These have no meaning here.
const openAtOnce, openLiterally = 0, 0

// names is not asked here, where nobody starts the agent for another account.
func names(fs.FileInfo) uint64 { return 1 }
