package main

import "strings"

func joined(values []string) string { return strings.Join(values, ",") }
