//go:build windows

package windows

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"

	"postern/platform"
	"postern/platform/platformtest"
)

// real says that this is Windows and not wine, which accepts access lists and
// stores others: there a pass would prove nothing.
var real = flag.Bool("real", false, "run what only a real Windows can prove")

func TestHostKeepsTheContract(t *testing.T) {
	if !*real {
		t.Skip("not proven here: run with -real on a Windows machine")
	}
	platformtest.Run(t, func(t *testing.T) platform.Host {
		base := platformtest.Dir(t)
		h, err := New(Options{
			StateDir: filepath.Join(base, "state"), RuntimeDir: filepath.Join(base, "run"),
			TokensDir: filepath.Join(base, "tokens"), Group: "Users",
		})
		if err != nil {
			t.Fatal(err)
		}
		return h
	})
}

func TestDescriptorsAreUnderstoodByTheSystem(t *testing.T) {
	for _, a := range []platform.Access{platform.Private, platform.TokenReaders, platform.Public} {
		for _, dir := range []bool{true, false} {
			sddl := testPolicy(a).sddl(dir)
			sd, err := windows.SecurityDescriptorFromString("O:SY" + sddl + labelHigh)
			if err != nil {
				t.Errorf("%s: %v", sddl, err)
				continue
			}
			if err := testPolicy(a).judge(`C:\x`, sd.String()); err != nil {
				t.Errorf("%s came back as %s: %v", sddl, sd, err)
			}
		}
	}
	if _, err := windows.SecurityDescriptorFromString(sddlPipe[:len(sddlPipe)-len("%[1]s)")] + agentSID + ")"); err != nil {
		t.Error(err)
	}
}

func TestServiceIsAsTheConventionsSay(t *testing.T) {
	c := serviceConfig()
	if c.ServiceStartName != `NT SERVICE\postern` || c.SidType != windows.SERVICE_SID_TYPE_RESTRICTED || c.DelayedAutoStart {
		t.Errorf("service is %+v", c)
	}
	if got := len(recovery()); got != 3 {
		t.Errorf("%d recovery actions, want 3", got)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
