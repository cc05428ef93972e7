package oauth

import (
	"errors"
	"fmt"
	"net/url"
)

// loginHost is where a cloud's tenants sign in.
func loginHost(cloud string) (string, error) {
	switch cloud {
	case "", "public":
		return "login.microsoftonline.com", nil
	case "usgov", "usdod":
		return "login.microsoftonline.us", nil
	case "china":
		return "login.partner.microsoftonline.cn", nil
	}
	return "", fmt.Errorf("cloud is %q, want public, usgov, usdod or china", cloud)
}

// applyPreset fills in the URLs that a preset stands for and leaves those that
// are set. The metadata is not asked for its token endpoint: the address is
// documented and has not changed.
func (c *Config) applyPreset() error {
	switch c.Preset {
	case "":
		return nil
	case Entra:
	default:
		return fmt.Errorf("preset is %q, want none or %q", c.Preset, Entra)
	}
	host, err := loginHost(c.Cloud)
	if err != nil {
		return err
	}
	if c.Tenant == "" {
		return errors.New("preset entra needs a tenant")
	}
	base := (&url.URL{Scheme: "https", Host: host, Path: "/" + c.Tenant}).String()
	if c.TokenURL == "" {
		c.TokenURL = base + "/oauth2/v2.0/token"
	}
	if c.Issuer == "" {
		c.Issuer = base + "/v2.0"
	}
	return nil
}
