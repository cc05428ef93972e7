package main

// openLiterally has no meaning here.
const openLiterally = 0
