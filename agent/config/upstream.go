package config

func authoritySection() section {
	return section{name: "authority", doc: "Who issues the certificates. What is empty is learnt at connect.", fields: []field{
		top("driver", "Its protocol.", "stepca",
			func(c *Config) any { return &c.Authority.Driver }).oneOf("stepca"),
		top("url", "Base URL, https.", "",
			func(c *Config) any { return &c.Authority.URL }).checked(baseURL).like("https://ca.site.local:8443"),
		top("root_sha256", "Fingerprint of its root certificate, hexadecimal SHA-256.", "",
			func(c *Config) any { return &c.Authority.RootSHA256 }).checked(fingerprint),
		top("ca_file", "PEM file with its root certificates, instead of the fingerprint.", "",
			func(c *Config) any { return &c.Authority.CAFile }).checked(absolute),
		top("assignments", "Ask it which user-assigned identities belong to this device. One that keeps none says so.", "true",
			func(c *Config) any { return &c.Authority.Assignments }),
	}}
}

func tokenSection() section {
	return section{name: "token", doc: "Who issues the tokens, and how it wants to be asked.", fields: []field{
		top("issuer", "Its URL, https. Empty: as learnt at connect.", "",
			func(c *Config) any { return &c.Token.Issuer }).checked(secureURL).like("https://login.site.local"),
		top("token_url", "Its token endpoint, https. Empty: asked of the issuer.", "",
			func(c *Config) any { return &c.Token.TokenURL }).checked(secureURL),
		top("preset", "\"entra\" fills the URLs for Entra ID from tenant and cloud.", "",
			func(c *Config) any { return &c.Token.Preset }).oneOf("", "entra"),
		top("tenant", "Tenant id or domain, for the preset.", "",
			func(c *Config) any { return &c.Token.Tenant }).checked(tenant),
		top("cloud", "For the preset.", "public",
			func(c *Config) any { return &c.Token.Cloud }).oneOf("public", "usgov", "usdod", "china"),
		top("auth", "How the device proves itself.", "private_key_jwt",
			func(c *Config) any { return &c.Token.Auth }).oneOf("private_key_jwt", "tls_client_auth"),
		top("alg", "Signature of the assertion. \"auto\" follows the key: PS256 or ES256.", "auto",
			func(c *Config) any { return &c.Token.Alg }).oneOf("auto", "PS256", "RS256", "ES256"),
		top("assertion_aud", "Audience of the assertion.", "token_endpoint",
			func(c *Config) any { return &c.Token.AssertionAud }).oneOf("token_endpoint", "issuer"),
		top("resource_param", "How the resource is named: \"entra_scope\", \"resource\" (RFC 8707), \"audience\", or\n"+
			"\"scope:NAME\" for one fixed scope.", "entra_scope",
			func(c *Config) any { return &c.Token.ResourceParam }).checked(resourceParam),
		top("send_x5c", "Put the certificate chain into the assertion.", "false",
			func(c *Config) any { return &c.Token.SendX5C }),
		top("roots", "PEM file with the only roots to believe. Empty: those of the authority or the system.", "",
			func(c *Config) any { return &c.Token.Roots }).checked(absolute),
		top("max_resources", "Identities times resources that may be in use at once.", "128",
			func(c *Config) any { return &c.Token.MaxResources }).between(1, 4096),
	}}
}

func inIdentity(name, fallback string, at func(*Identity) any) field {
	return field{name: name, fallback: fallback, at: func(t any) any { return at(t.(*Identity)) }}
}

func identitySection() section {
	return section{
		name: "identity", limit: MaxIdentities,
		doc: "Identities of this device, where the authority cannot say which they are. Each has a claim of its own:\n" +
			"postern connect --identity NAME.",
		add: func(c *Config) any {
			c.Identities = append(c.Identities, Identity{})
			return &c.Identities[len(c.Identities)-1]
		},
		each: func(c *Config) []any { return pointers(c.Identities) },
		fields: []field{
			inIdentity("kind", "UserAssigned",
				func(i *Identity) any { return &i.Kind }).oneOf("SystemAssigned", "UserAssigned"),
			inIdentity("name", "",
				func(i *Identity) any { return &i.Name }).checked(printable).needed().like("telemetry"),
			inIdentity("client_id", "",
				func(i *Identity) any { return &i.ClientID }).checked(ownID).needed().like("7b1e4a52-9d0c-4a5e-8f63-0c2b6f1d9e37"),
			inIdentity("object_id", "", func(i *Identity) any { return &i.ObjectID }).checked(clientID),
			inIdentity("tenant_id", "", func(i *Identity) any { return &i.TenantID }).checked(clientID),
			inIdentity("resource_id", "", func(i *Identity) any { return &i.ResourceID }).checked(printable),
		},
	}
}
