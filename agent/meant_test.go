package main

import (
	"testing"

	"postern/agent/authority/stepca"
	"postern/agent/credential"
)

func TestClaimIsForTheIdentityThatIsMeant(t *testing.T) {
	system := credential.Identity{Kind: credential.SystemAssigned, Name: "gw-0042", ClientID: "gateway"}
	meter := credential.Identity{Kind: credential.UserAssigned, Name: "meter", ClientID: "7B1E6A0E-7f1a-4f0e-9c55-0c1f6a7d2b11"}
	pump := credential.Identity{Kind: credential.UserAssigned, Name: "pump", ClientID: "pump-client"}
	foreign := stepca.Claim{Subject: "gw.plant", SANs: []string{"gw.plant"}}
	bySite := stepca.Claim{Subject: "11111111-2222-4333-8444-555555555555", SANs: []string{"urn:postern:identity:o", "urn:postern:machine:m"}}
	for name, c := range map[string]struct {
		list  []credential.Identity
		named string
		claim stepca.Claim
		want  credential.Identity
		fails bool
	}{
		"nothing is configured":             {nil, "", foreign, credential.Identity{}, false},
		"one alone":                         {[]credential.Identity{meter}, "", foreign, meter, false},
		"a site says itself":                {[]credential.Identity{meter}, "", bySite, credential.Identity{}, false},
		"the site's own client id":          {[]credential.Identity{system, meter}, "", stepca.Claim{Subject: "7b1e6a0e-7f1a-4f0e-9c55-0c1f6a7d2b11", SANs: bySite.SANs}, meter, false},
		"the device's own comes first":      {[]credential.Identity{meter, system}, "", foreign, system, false},
		"by the claim's name":               {[]credential.Identity{system, meter, pump}, "", stepca.Claim{Subject: "Pump", SANs: []string{"Pump"}}, pump, false},
		"by name":                           {[]credential.Identity{system, meter, pump}, "PUMP", foreign, pump, false},
		"by client id":                      {[]credential.Identity{system, meter, pump}, "pump-client", foreign, pump, false},
		"a name beats the claim's":          {[]credential.Identity{system, meter, pump}, "meter", stepca.Claim{Subject: "pump"}, meter, false},
		"two, and none of them is the own":  {[]credential.Identity{meter, pump}, "", foreign, credential.Identity{}, true},
		"one that is not there":             {[]credential.Identity{meter}, "valve", foreign, credential.Identity{}, true},
		"one that is not there, and a site": {nil, "valve", bySite, credential.Identity{}, true},
	} {
		got, err := meant("connect", c.list, c.named, c.claim)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
