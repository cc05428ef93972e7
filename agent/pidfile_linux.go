package main

import "syscall"

// openLiterally keeps an open from following a link or waiting for a reader.
const openLiterally = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
