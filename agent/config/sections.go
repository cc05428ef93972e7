package config

import "time"

func generalSection() section {
	return section{fields: []field{
		top("state_dir", "Where the databases and keys lie. Empty: the system's place, /var/lib/postern.", "",
			func(c *Config) any { return &c.StateDir }).checked(absolute),
		top("runtime_dir", "Where the control socket lies. Empty: the system's place, /run/postern.", "",
			func(c *Config) any { return &c.RuntimeDir }).checked(absolute),
		top("tokens_dir", "Where challenge files are made, best on tmpfs. Empty: the system's place, /run/postern/tokens.\n"+
			"Clients look in /var/opt/azcmagent/tokens, which must lead here.", "",
			func(c *Config) any { return &c.TokensDir }).checked(absolute),
		top("group", "The group that may read challenge files, a name or a number.", "himds",
			func(c *Config) any { return (*account)(&c.Group) }).checked(printable).needed(),
		top("user", "The account to become when started as root: \"user\" or \"user:group\". Empty: stay.", "",
			func(c *Config) any { return &c.User }).checked(printable),
		top("log", "Form of the log on standard error.", "logfmt",
			func(c *Config) any { return &c.Log }).oneOf("logfmt", "json"),
		top("log_level", "Least severe line that is logged.", "info",
			func(c *Config) any { return &c.LogLevel }).oneOf("debug", "info", "warn", "error"),
		top("clock", "\"trusted\" vouches for the device's own real-time clock; \"auto\" believes it only when the\n"+
			"kernel is synchronised or the authority agrees.", "auto",
			func(c *Config) any { return &c.Clock }).oneOf("auto", "trusted"),
		top("offline_after", "How long without contact until the state is Offline.", "15m",
			func(c *Config) any { return &c.OfflineAfter }).between(int64(time.Minute), int64(7*24*time.Hour)),
		top("memory_limit", "Soft limit of the program's heap.", "28MiB",
			func(c *Config) any { return &c.MemoryLimit }).between(16<<20, 1<<30),
		top("proxy", "How authorities are reached: empty for directly, a URL, or \"environment\" for the proxy\n"+
			"variables. Its credentials stand in a file of their own.", "",
			func(c *Config) any { return &c.Proxy }).checked(proxy).like("http://proxy.plant.local:3128"),
		top("proxy_credentials_file", "File with user:password for the proxy.", "",
			func(c *Config) any { return &c.ProxyCredentialsFile }).checked(absolute),
		top("allow_remote_state", "Allow a state directory on NFS, CIFS, 9p or FUSE, where a power cut may lose more.", "false",
			func(c *Config) any { return &c.AllowRemoteState }),
	}}
}

func arcSection() section {
	return section{name: "arc", doc: "The Azure Arc flavour: two requests and a challenge file.", fields: []field{
		top("enabled", "Serve it.", "true", func(c *Config) any { return &c.Arc.Enabled }),
		top("listen", "Loopback addresses, both families with one port. Clients without variables look at port 40342.",
			"127.0.0.1:40342,[::1]:40342", func(c *Config) any { return &c.Arc.Listen }).checked(loopback),
	}}
}

func imdsSection() section {
	return section{name: "imds", doc: "The virtual machine's flavour: one request. Off unless a program needs it.", fields: []field{
		top("enabled", "Serve it.", "false", func(c *Config) any { return &c.IMDS.Enabled }),
		top("listen", "169.254.169.254:80, or loopback addresses for clients that take a base URL.", "169.254.169.254:80",
			func(c *Config) any { return &c.IMDS.Listen }).checked(metadataAddress),
		top("allow", "Who may ask: \"granted\" is root, the group and users granted by name; \"anyone\" is what a\n"+
			"virtual machine does.", "granted", func(c *Config) any { return &c.IMDS.Allow }).oneOf("granted", "anyone"),
		top("hosts", "Further names that a request may have in Host.", "",
			func(c *Config) any { return &c.IMDS.Hosts }).checked(hostName).like("imds.local"),
	}}
}

func inWorkload(name, doc, fallback string, at func(*Workload) any) field {
	return field{name: name, doc: doc, fallback: fallback, at: func(t any) any { return at(t.(*Workload)) }}
}

func workloadSection() section {
	return section{
		name: "workload", limit: MaxWorkloads,
		doc: "One listener a container or program: its secret is the caller (App Service flavour).\n" +
			"postern env NAME prints the two variables.",
		add: func(c *Config) any {
			c.Workloads = append(c.Workloads, Workload{})
			return &c.Workloads[len(c.Workloads)-1]
		},
		each: func(c *Config) []any { return pointers(c.Workloads) },
		fields: []field{
			inWorkload("name", "Its name, for the audit and for grants: small letters, digits and hyphens.", "",
				func(w *Workload) any { return &w.Name }).checked(label).needed().like("telemetry"),
			inWorkload("listen", "A loopback address or that of a bridge, never all interfaces.", "",
				func(w *Workload) any { return &w.Listen }).checked(bridge).needed().like("172.17.0.1:40400"),
			inWorkload("hosts", "Names that a request may have in Host beside the address.", "host.docker.internal",
				func(w *Workload) any { return &w.Hosts }).checked(hostName),
			inWorkload("identities", "Identities that it may use: client ids, or \"system\". Empty: all.", "",
				func(w *Workload) any { return &w.Identities }).checked(clientID).like("system"),
			inWorkload("resources", "Resources that it may ask for, exact or with a star at the end. Empty: all.", "",
				func(w *Workload) any { return &w.Resources }).checked(resource).like("https://vault.azure.net"),
		},
	}
}

func inGrant(name, doc string, at func(*Grant) any) field {
	return field{name: name, doc: doc, at: func(t any) any { return at(t.(*Grant)) }}
}

func grantSection() section {
	return section{
		name: "grant", limit: MaxGrants,
		doc: "Who may use which identity for what. Without any grant every reader of the token directory may use\n" +
			"all; with one, only what is listed.",
		add: func(c *Config) any {
			c.Grants = append(c.Grants, Grant{})
			return &c.Grants[len(c.Grants)-1]
		},
		each: func(c *Config) []any { return pointers(c.Grants) },
		fields: []field{
			inGrant("who", "uid:N, user:NAME, group:NAME, listener:NAME, workload:NAME or sid:S-1-….",
				func(g *Grant) any { return &g.Who }).checked(who).needed().like("user:telemetry"),
			inGrant("identity", "A client id, or \"system\".",
				func(g *Grant) any { return &g.Identity }).checked(clientID).needed().like("system"),
			inGrant("resources", "Exact, or with a star at the end.",
				func(g *Grant) any { return &g.Resources }).checked(resource).needed().like("https://vault.azure.net"),
		},
	}
}

func keySection() section {
	return section{name: "key", doc: "How device keys are made and kept. Changes count from the next connect or renewal.", fields: []field{
		top("algorithm", "Entra ID accepts RSA-2048 only.", "EC-P256",
			func(c *Config) any { return &c.Key.Algorithm }).oneOf("EC-P256", "RSA-2048"),
		top("protection", "\"file\" is a file that only the agent can read.", "file",
			func(c *Config) any { return &c.Key.Protection }).oneOf("file"),
	}}
}

func instanceSection() section {
	return section{name: "instance", doc: "What /metadata/instance tells programs about this device.", fields: []field{
		top("name", "Empty: the host name.", "", func(c *Config) any { return &c.Instance.Name }).checked(printable),
		top("location", "", "", func(c *Config) any { return &c.Instance.Location }).checked(printable).like("plant-7"),
		top("subscription_id", "", "", func(c *Config) any { return &c.Instance.SubscriptionID }).checked(printable),
		top("resource_group", "", "", func(c *Config) any { return &c.Instance.ResourceGroup }).checked(printable),
		top("tags", "", "", func(c *Config) any { return &c.Instance.Tags }).checked(printable).like("line=2"),
	}}
}

func auditSection() section {
	return section{name: "audit", doc: "The audit ring, which is also bounded by 1 MB.", fields: []field{
		top("max_records", "Records kept.", "2000",
			func(c *Config) any { return &c.Audit.MaxRecords }).between(100, 10_000),
	}}
}

// pointers returns the elements' addresses.
func pointers[T any](elements []T) []any {
	all := make([]any, len(elements))
	for i := range elements {
		all[i] = &elements[i]
	}
	return all
}
