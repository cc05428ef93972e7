package windows

import (
	"errors"
	"strings"
	"testing"

	"postern/platform"
)

const (
	agentSID   = "S-1-5-80-1-2-3-4-5"
	readersSID = "S-1-5-21-1-2-3-1007"
	userSID    = "S-1-5-21-1-2-3-1001"
)

func testPolicy(a platform.Access) policy {
	return policy{access: a, agent: agentSID, readers: readersSID}
}

// TestWhatWeMakePassesOurOwnCheck: each constant as the system reads it back,
// with an owner.
func TestWhatWeMakePassesOurOwnCheck(t *testing.T) {
	for _, a := range []platform.Access{platform.Private, platform.TokenReaders, platform.Public} {
		for _, dir := range []bool{true, false} {
			for _, owner := range []string{agentSID, "SY", "BA"} {
				p := testPolicy(a)
				if err := p.judge(`C:\x`, "O:"+owner+"G:SY"+p.sddl(dir)+labelHigh); err != nil {
					t.Errorf("%v dir=%v owner %s: %v", a, dir, owner, err)
				}
			}
		}
	}
	p := testPolicy(platform.TokenReaders)
	p.readers = ""
	if strings.Contains(p.sddl(true), "%") || p.sddl(true) != testPolicy(platform.Private).sddl(true) {
		t.Errorf("without a group token readers is %s, want private", p.sddl(true))
	}
}

func TestOurListsKeepTheirPromises(t *testing.T) {
	for name, sddl := range map[string]string{
		"private dir": sddlPrivateDir, "private file": sddlPrivateFile, "tokens dir": sddlTokensDir,
		"tokens file": sddlTokensFile, "public dir": sddlPublicDir, "public file": sddlPublicFile,
	} {
		text := strings.NewReplacer("%[1]s", agentSID, "%[2]s", readersSID).Replace("O:SY" + sddl)
		d, err := parseSDDL(text)
		if err != nil || !d.protected {
			t.Fatalf("%s: protected is %v, %v", name, d.protected, err)
		}
		var owner bool
		for _, e := range d.aces {
			if e.sid == sidOwnerRights {
				owner = true
				if e.mask&(rightWriteDAC|rightWriteOwner) != 0 {
					t.Errorf("%s lets the owner change the list", name)
				}
			}
			if e.sid == agentSID && e.mask&(rightWriteDAC|rightWriteOwner) != 0 {
				t.Errorf("%s lets the agent change the list", name)
			}
		}
		if !owner {
			t.Errorf("%s leaves the owner his implicit rights", name)
		}
	}
}

// TestDescriptorsThatLetOthersInAreRefused has descriptors as Windows prints
// them, most of them seen on folders of ProgramData.
func TestDescriptorsThatLetOthersInAreRefused(t *testing.T) {
	const good = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
	for _, test := range []struct {
		sddl, says string
		readers    bool
	}{
		{"O:SYG:SYD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)", "inherits", false},
		{"O:" + userSID + "G:SY" + good, "owner is " + userSID, false},
		{"O:SYG:SY" + good + "(A;OICI;0x1200a9;;;BU)", sidUsers, true},
		{"O:SYG:SY" + good + "(A;OICI;FA;;;WD)", "S-1-1-0", true},
		{"O:SYG:SY" + good + "(A;OICIIO;FA;;;CO)", "S-1-3-0", true},
		{"O:SYG:SY" + good + "(A;;WD;;;AU)", "S-1-5-11", false},
		{"O:SYG:SY" + good + "(A;;FR;;;LA)", "LA", true},
		{"O:SYG:SY" + good + "(A;;FR;;;" + readersSID + ")", readersSID, true}, // readers of tokens, not of keys
		{"O:SYG:SYD:NO_ACCESS_CONTROL", "no access list", true},
		{"O:SYG:SY", "no access list", true},
		{"O:SYG:SY" + good + "(XA;;FA;;;WD;(WIN://SYSAPPID))", "understood", false},
		{"O:SYG:SY" + good + "(A;;ZZ;;;BA)", "understood", false},
		{"nonsense", "understood", false},
		{"", "understood", false},
	} {
		err := testPolicy(platform.Private).judge(`C:\x`, test.sddl)
		var access *platform.AccessError
		if !errors.As(err, &access) || !strings.Contains(access.Problem, test.says) {
			t.Errorf("%s: got %v, want a refusal with %q", test.sddl, err, test.says)
			continue
		}
		if (access.Readers != "") != test.readers {
			t.Errorf("%s: readers are %q", test.sddl, access.Readers)
		}
	}
}

func TestReadersMayReadAndNothingElse(t *testing.T) {
	base := "O:SYG:SYD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
	for rights, ok := range map[string]bool{"0x1200a9": true, "FR": true, "GR": true, "FRFX": true, "FA": false, "FRFW": false, "SD": false, "0x1301bf": false} {
		err := testPolicy(platform.TokenReaders).judge(`C:\x`, base+"(A;OICI;"+rights+";;;"+readersSID+")")
		if (err == nil) != ok {
			t.Errorf("readers with %s: %v", rights, err)
		}
	}
	if err := testPolicy(platform.TokenReaders).judge(`C:\x`, base); err == nil {
		t.Error("readers that are shut out were not noticed")
	}
}

// TestParentsThatOthersCanExchangeAreRefused has the lists of a fresh Windows:
// users may add folders to ProgramData and to the root, and exchange nothing.
func TestParentsThatOthersCanExchangeAreRefused(t *testing.T) {
	const installer = "O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	for sddl, ok := range map[string]bool{
		installer + "G:SYD:PAI(A;;LC;;;AU)(A;OICIIO;SDGXGWGR;;;AU)(A;OICI;0x1200a9;;;BU)(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)":                     true,
		"O:SYG:SYD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(A;CI;DCLCRPCR;;;BU)":                           true,
		"O:SYG:SYD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BU)":                                                                                       false,
		"O:SYG:SYD:PAI(A;OICI;FA;;;SY)(A;;DT;;;BU)":                                                                                           false,
		"O:SYG:SYD:PAI(A;OICI;FA;;;SY)(A;;WD;;;BU)":                                                                                           false,
		"O:" + userSID + "G:SYD:PAI(A;OICI;FA;;;SY)":                                                                                          false,
		"O:SYG:SYD:NO_ACCESS_CONTROL":                                                                                                         false,
		"O:SYG:SYD:PAI(D;;FA;;;BU)(A;OICI;FA;;;SY)":                                                                                           true,
		"O:SYG:SYD:PAI(A;OICI;FA;;;" + agentSID + ")S:AI(ML;OICI;NW;;;HI)":                                                                    true,
		"O:SYG:SYD:PAI(OA;CI;CCDC;bf967aba-0de6-11d0-a285-00aa003049e2;;BU)":                                                                  false,
		"O:BAG:S-1-5-21-1-2-3-513D:P(A;;FA;;;BA)":                                                                                             true,
		"O:BAG:BAD:P(A;;FA;;;BA)(A;;0x1200a9;;;" + userSID + ")(A;;GX;;;" + userSID + ")(A;;GRGX;;;WD)(A;;GW;;;" + agentSID + ")(D;;GA;;;NU)": true,
	} {
		if err := testPolicy(platform.Private).judgeParent(`C:\x`, sddl); (err == nil) != ok {
			t.Errorf("%s: %v", sddl, err)
		}
	}
}

// TestServiceSIDIsTheSystemsFormula uses the one such SID that everybody knows.
func TestServiceSIDIsTheSystemsFormula(t *testing.T) {
	if got := serviceSID("TrustedInstaller"); got != sidTrustedInstaller {
		t.Errorf("got %s, want %s", got, sidTrustedInstaller)
	}
}

func FuzzSDDL(f *testing.F) {
	f.Add("O:SYG:SYD:PAI(A;OICI;FA;;;SY)(A;;0x1200a9;;;BU)S:AI(ML;OICI;NW;;;HI)")
	f.Add("O:S-1-5-21-1-2-3-1001D:NO_ACCESS_CONTROL")
	f.Add("D:(")
	f.Add("O:SYD:P()")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseSDDL(text)
		if err == nil && d.owner == "" {
			t.Errorf("%q was understood without an owner", text)
		}
		refused := testPolicy(platform.Private).judge(`C:\x`, text)
		for _, e := range d.aces {
			if err == nil && refused == nil && !e.deny && e.mask != 0 && e.sid == "S-1-1-0" {
				t.Errorf("%q lets everyone in", text)
			}
		}
	})
}
