package windows

import (
	"strings"
	"testing"
)

func TestSiteAuthorityHasAPipeOfItsOwn(t *testing.T) {
	one, same, other := AdminPipe(`C:\ProgramData\a`), AdminPipe(`c:\programdata\A`), AdminPipe(`C:\ProgramData\b`)
	if one == ControlPipe || !strings.HasPrefix(one, `\\.\pipe\postern-`) {
		t.Errorf("the authority's pipe is %s, the agent's %s", one, ControlPipe)
	}
	if one != same || one == other {
		t.Errorf("pipes %s and %s for one directory, %s for another", one, same, other)
	}
}
