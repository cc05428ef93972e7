//go:build !unix

package main

import "os/exec"

func together(cmd *exec.Cmd) { cmd.WaitDelay = 2 * patience }
