package oauth

import (
	"strings"
	"testing"
)

func TestSettingsThatCannotBe(t *testing.T) {
	const good = "https://a.test"
	for want, c := range map[string]Config{
		"neither issuer":            {},
		"issuer is not an https":    {Issuer: "http://a.test"},
		"token_url is not an https": {TokenURL: "https://u:secret@a.test"},
		`auth is "secret"`:          {Issuer: good, Auth: "secret"},
		`alg is "none"`:             {Issuer: good, Alg: "none"},
		`assertion_aud is "me"`:     {Issuer: good, AssertionAud: "me"},
		`resource_param is "x"`:     {Issuer: good, ResourceParam: "x"},
		`resource_param is "scope:`: {Issuer: good, ResourceParam: "scope:a b"},
		"issuer is not set":         {TokenURL: good, AssertionAud: AudIssuer},
		`preset is "aws"`:           {Preset: "aws"},
		"needs a tenant":            {Preset: Entra},
		`cloud is "moon"`:           {Preset: Entra, Tenant: "t", Cloud: "moon"},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:secret") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestEntraPresetFillsTheAddresses(t *testing.T) {
	for cloud, host := range map[string]string{
		"": "login.microsoftonline.com", "public": "login.microsoftonline.com", "usgov": "login.microsoftonline.us",
		"usdod": "login.microsoftonline.us", "china": "login.partner.microsoftonline.cn",
	} {
		i, err := New(Config{Preset: Entra, Tenant: "contoso.test", Cloud: cloud})
		if err != nil {
			t.Fatal(err)
		}
		c, end := i.config, i.fixed()
		if end.token != "https://"+host+"/contoso.test/oauth2/v2.0/token" || end.aud != end.token || c.ResourceParam != EntraScope || c.Auth != PrivateKeyJWT {
			t.Errorf("%q: %+v, %+v", cloud, end, c)
		}
		if i.dateAddress(end) != "https://"+host+"/contoso.test/v2.0/.well-known/openid-configuration" {
			t.Errorf("%q: %s", cloud, i.dateAddress(end))
		}
	}
	i, err := New(Config{Preset: Entra, Tenant: "t", TokenURL: "https://own.test/token", Issuer: "https://own.test"})
	if err != nil || i.config.TokenURL != "https://own.test/token" || i.config.Issuer != "https://own.test" {
		t.Errorf("what is set was overwritten: %+v, %v", i.config, err)
	}
	i, err = New(Config{Preset: Entra, Tenant: "../evil"})
	if err != nil || !strings.HasPrefix(i.config.TokenURL, "https://login.microsoftonline.com/") {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestIssuerOfTheMetadataMustBeOurs(t *testing.T) {
	for _, c := range []struct {
		configured, said string
		want             bool
	}{
		{"https://a.test", "https://a.test", true},
		{"https://a.test", "https://a.test/", true},
		{"https://a.test/", "https://a.test:443", true},
		{"https://a.test", "https://a.test/tenant/v2.0", true}, // a bare host's metadata may be a tenant's
		{"https://a.test/t1", "https://a.test/t1/", true},
		{"https://a.test/t1", "https://a.test/t2", false},
		{"https://a.test/t1", "https://a.test", false},
		{"https://a.test", "https://b.test", false},
		{"https://a.test", "https://a.test.evil.test", false},
		{"https://a.test", "http://a.test", false},
		{"https://a.test", "https://a.test:8443", false},
		{"https://a.test", "https://a.test?x=1", false},
		{"https://a.test", "", false},
		{"https://a.test", "a.test", false},
	} {
		if got := sameIssuer(c.configured, c.said); got != c.want {
			t.Errorf("%s and %s: got %v", c.configured, c.said, got)
		}
	}
}

func TestPlacesOfTheMetadata(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://a.test":       "https://a.test/.well-known/openid-configuration https://a.test/.well-known/oauth-authorization-server",
		"https://a.test/":      "https://a.test/.well-known/openid-configuration https://a.test/.well-known/oauth-authorization-server",
		"https://a.test/t/v2/": "https://a.test/t/v2/.well-known/openid-configuration https://a.test/.well-known/oauth-authorization-server/t/v2",
	} {
		if got := strings.Join(wellKnown(issuer), " "); got != want {
			t.Errorf("got %s", got)
		}
	}
}
