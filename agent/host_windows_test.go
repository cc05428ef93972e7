package main

import "testing"

func TestAuthorityAndAgentDoNotShareAPipe(t *testing.T) {
	if a, b := adminSocket(`C:\ProgramData\postern-authority`), controlAddress(`C:\ProgramData\postern`); a == b {
		t.Errorf("both listen on %s", a)
	}
}
