package config_test

import (
	"strings"
	"testing"

	"postern/agent/config"
)

const grantHead = "[[grant]]\nwho = \"uid:1\"\nidentity = \"system\"\nresources = [\"*\"]\n"

// badFiles are files with one thing wrong and the whole error, without the
// path of the file.
var badFiles = []struct{ name, text, want string }{
	// TOML itself
	{"no TOML", "listen", `1: unexpected EOF; expected key separator '='; correct the TOML`},
	{"broken text", "log = \"json\nclock = 1", `1: strings cannot contain newlines; correct the TOML`},
	{"key twice", "log = \"json\"\n\nlog = \"json\"", `3: Key 'log' has already been defined; correct the TOML`},
	{"table twice", "[arc]\n[imds]\n[arc]", `3: Key 'arc' has already been defined; correct the TOML`},
	{"UTF-16", "\xff\xfel\x00o\x00g\x00", `1: is UTF-16; save it as UTF-8`},
	{"UTF-16, the other way round", "\xfe\xff\x00l\x00o\x00g", `1: is UTF-16; save it as UTF-8`},
	{"wrong key behind a byte order mark", "\ufefflg = 1", `1: lg: is not a known key; did you mean log?`},
	{"broken UTF-8", "log = \"\xff\"", `1: invalid UTF-8 byte: 0xff; correct the TOML`},
	{"a NUL", "log = \"a\x00b\"", `1: TOML files cannot contain control characters: '0x00'; correct the TOML`},

	// unknown keys, with the line and the nearest known one
	{"misspelt key", "\n\nlog-levl = \"info\"", `3: log-levl: is not a known key; did you mean log_level?`},
	{"key of a table at the top", "listen = []", `1: listen: is not a known key; did you mean arc.listen?`},
	{"key of another table", "[arc]\nallow = \"anyone\"", `2: arc.allow: is not a known key; did you mean imds.allow?`},
	{"misspelt table", "[autority]", `1: autority: is not a known key; did you mean [authority]?`}, //nolint:misspell // that is what it is for
	{"misspelt table of a list", "[[grants]]\nwho = \"uid:1\"", `1: grants: is not a known key; did you mean [[grant]]?`},
	{
		"misspelt key in the second of a list", grantHead + "[[grant]]\nwho = \"uid:1\"\nresource = [\"*\"]\nidentity = \"system\"\nresources = [\"*\"]\n",
		`7: grant.resource: is not a known key; did you mean grant.resources?`,
	},
	{"nothing near", "flux_capacitor = 1.21", `1: flux_capacitor: is not a known key; see postern config print --defaults`},
	{"odd key", "\"a\\u001b[31m\" = 1", `1: "a\x1b[31m": is not a known key; see postern config print --defaults`},
	{"empty key", "\"\" = 1", `1: "": is not a known key; see postern config print --defaults`},
	{"dotted key", "arc.listn = []", `1: arc.listn: is not a known key; did you mean arc.listen?`},
	{"inline table", "imds = { enabled = true,\n  alow = \"granted\" }", `2: imds.alow: is not a known key; did you mean imds.allow?`},
	{"a secret", "[authority]\nclient_secret = \"x\"", `2: authority.client_secret: is not a known key; take it out: no secret belongs in this file, connect reads it with --claim-file`},
	{"a password at the top", "proxy_password = \"x\"", `1: proxy_password: is not a known key; take it out: no secret belongs in this file, connect reads it with --claim-file`},

	// types
	{"number for text", "log = 1", `1: log: is a whole number; write a text in quotes`},
	{"text for bool", "allow_remote_state = \"yes\"", `1: allow_remote_state: is a text; write true or false`},
	{"bool for text", "clock = true", `1: clock: is true or false; write a text in quotes`},
	{"text for number", "[token]\nmax_resources = \"12\"", `2: token.max_resources: is a text; write a whole number`},
	{"fraction for number", "[token]\nmax_resources = 1.5", `2: token.max_resources: is a number with a fraction; write a whole number`},
	{"text for list", "[arc]\nlisten = \"127.0.0.1:40342\"", `2: arc.listen: is a text; write a list of texts in brackets`},
	{"number in list", "[arc]\nlisten = [40342]", `2: arc.listen: is a whole number; write a list of texts in brackets`},
	{"number for duration", "offline_after = 15", `1: offline_after: is a whole number; write a duration such as "15m"`},
	{"date for size", "memory_limit = 2026-11-20", `1: memory_limit: is a date; write a size such as "28MiB"`},
	{"list for name", "group = []", `1: group: is a list; write a name or a number`},
	{"text for table", "arc = \"on\"", `1: arc: is a text; write it as a table: [arc]`},
	{"list of tables for table", "[[arc]]\nenabled = true", `1: arc: is a list of tables; write it as a table: [arc]`},
	{"table for list of tables", "[grant]\nwho = \"uid:1\"", `1: grant: is a table; write it as a table of a list: [[grant]]`},
	{"list for list of tables", "grant = [1]", `1: grant: is a list; write it as a table of a list: [[grant]]`},
	{"list for tags", "[instance]\ntags = [\"a\"]", `2: instance.tags: is a list; write a table such as { line = "2" }`},
	{"number in tags", "[instance.tags]\nline = 2", `1: instance.tags: is a whole number; write a table such as { line = "2" }`},

	// values
	{"unknown choice", "clock = \"sundial\"", `1: clock: "sundial" is not known; use "auto" or "trusted"`},
	{"choice in capitals", "log_level = \"INFO\"", `1: log_level: "INFO" is not known; use "debug", "info", "warn" or "error"`},
	{"key protection of later", "[key]\nprotection = \"tpm\"", `2: key.protection: "tpm" is not known; use "file"`},
	{"driver of later", "[authority]\ndriver = \"graph\"", `2: authority.driver: "graph" is not known; use "stepca"`},
	{"relative path", "state_dir = \"state\"", `1: state_dir: "state" is not an absolute path`},
	{"path with control character", "state_dir = \"/var/\\u0007\"", `1: state_dir: "/var/\a" has a character that cannot be printed`},
	{"path with a space at its end", "state_dir = \"/var/lib \"", `1: state_dir: "/var/lib " begins or ends with a space`},
	{"no duration", "offline_after = \"soon\"", `1: offline_after: "soon" is not a duration; write it as "15m" or "24h"`},
	{"too short", "offline_after = \"59s\"", `1: offline_after: 59s is not between 1m and 168h`},
	{"too long", "offline_after = \"169h\"", `1: offline_after: 169h is not between 1m and 168h`},
	{"no size", "memory_limit = \"28MB\"", `1: memory_limit: "28MB" is not a size; write it as "28MiB"`},
	{"too small", "memory_limit = \"1MiB\"", `1: memory_limit: 1MiB is not between 16MiB and 1GiB`},
	{"size beyond all numbers", "memory_limit = \"9999999999GiB\"", `1: memory_limit: "9999999999GiB" is not a size; write it as "28MiB"`},
	{"size below nothing", "memory_limit = -1", `1: memory_limit: -1 is not between 16MiB and 1GiB`},
	{"too large", "memory_limit = \"1025MiB\"", `1: memory_limit: 1025MiB is not between 16MiB and 1GiB`},
	{"size that wraps around", "memory_limit = \"17179869185GiB\"", `1: memory_limit: "17179869185GiB" is not a size; write it as "28MiB"`},
	{"text of 1025 bytes", "[instance]\nname = \"" + strings.Repeat("n", 1025) + "\"", `2: instance.name: "` + strings.Repeat("n", 80) + `…" is longer than 1024 bytes`},
	{"too many records", "[audit]\nmax_records = 10001", `2: audit.max_records: 10001 is not between 100 and 10000`},
	{"no entries", "[token]\nmax_resources = 0", `2: token.max_resources: 0 is not between 1 and 4096`},
	{"empty group", "group = \"\"", `1: group: is empty; name one`},
	{"empty element", "[imds]\nhosts = [\"\"]", `2: imds.hosts: has an empty element; leave it out`},
	{"element twice", "[imds]\nhosts = [\"a.b\", \"A.b\"]", `2: imds.hosts: "A.b" stands there twice; leave one out`},
	{"tag with a colon", "[instance]\ntags = { a = \"b:c\" }", `2: instance.tags: "a=b:c" has a colon or semicolon, which separate tags for clients; write it without`},

	// addresses: T7 and T8 of firmware-notes/attack-surface.md
	{"all interfaces", "[arc]\nlisten = [\"0.0.0.0:40342\", \"[::1]:40342\"]", `2: arc.listen: "0.0.0.0:40342" listens on every interface; name one address`},
	{"all interfaces, IPv6", "[arc]\nlisten = [\"127.0.0.1:40342\", \"[::]:40342\"]", `2: arc.listen: "[::]:40342" listens on every interface; name one address`},
	{"all interfaces in IPv6 clothing", "[arc]\nlisten = [\"[::ffff:0.0.0.0]:40342\"]", `2: arc.listen: "[::ffff:0.0.0.0]:40342" listens on every interface; name one address`},
	{"all interfaces by omission", "[arc]\nlisten = [\":40342\"]", `2: arc.listen: ":40342" is not an address with a port; write it as "127.0.0.1:40342" or "[::1]:40342"`},
	{"address of the network", "[arc]\nlisten = [\"192.168.1.5:40342\"]", `2: arc.listen: "192.168.1.5:40342" can be reached from the network; use 127.0.0.1 and [::1]; containers get a [[workload]]`},
	{"name instead of address", "[arc]\nlisten = [\"localhost:40342\"]", `2: arc.listen: "localhost:40342" is not an address with a port; write it as "127.0.0.1:40342" or "[::1]:40342"`},
	{"port left to chance", "[arc]\nlisten = [\"127.0.0.1:0\"]", `2: arc.listen: "127.0.0.1:0" leaves the port to chance; name one port`},
	{"IPv4 alone", "[arc]\nlisten = [\"127.0.0.1:40342\"]", `2: arc.listen: port 40342 is not held on ::1, where another user could take it; add "[::1]:40342"`},
	{"IPv6 alone", "[arc]\nlisten = [\"[::1]:40342\"]", `2: arc.listen: port 40342 is not held on 127.0.0.1, where another user could take it; add "127.0.0.1:40342"`},
	{"different ports", "[arc]\nlisten = [\"127.0.0.1:1\", \"[::1]:2\"]", `2: arc.listen: port 1 is not held on ::1, where another user could take it; add "[::1]:1"`},
	{"second loopback address", "[arc]\nlisten = [\"127.0.0.2:40342\", \"[::1]:40342\"]", `2: arc.listen: port 40342 is not held on 127.0.0.1, where another user could take it; add "127.0.0.1:40342"`},
	{"no address", "[arc]\nlisten = []", `2: arc.listen: is empty; name both loopback addresses, or set arc.enabled = false`},
	{"IMDS on the network", "[imds]\nlisten = [\"10.0.0.1:80\"]", `2: imds.listen: "10.0.0.1:80" can be reached from the network; use 169.254.169.254:80 or a loopback address`},
	{"IMDS on everything", "[imds]\nlisten = [\"0.0.0.0:80\"]", `2: imds.listen: "0.0.0.0:80" listens on every interface; name one address`},
	{"IMDS without address", "[imds]\nenabled = true\nlisten = []", `3: imds.listen: is empty; name an address, or set imds.enabled = false`},
	{"workload on everything", workload("0.0.0.0:40400"), `3: workload.listen: "0.0.0.0:40400" listens on every interface; name one address`},
	{"workload on everything, IPv6", workload("[::]:40400"), `3: workload.listen: "[::]:40400" listens on every interface; name one address`},
	{"workload on a public address", workload("203.0.113.7:40400"), `3: workload.listen: "203.0.113.7:40400" is a public address; use a loopback address or that of a bridge, such as 172.17.0.1`},
	{"workload on multicast", workload("224.0.0.1:40400"), `3: workload.listen: "224.0.0.1:40400" is not the address of one machine; name one address`},
	{"workload on broadcast", workload("255.255.255.255:40400"), `3: workload.listen: "255.255.255.255:40400" is not the address of one machine; name one address`},
	{"workload on the metadata address", workload("169.254.169.254:80"), `3: workload.listen: "169.254.169.254:80" is the metadata address; use [imds] for it`},
	{"workload without address", "[[workload]]\nname = \"a\"", `1: workload.listen: is missing; add it to this [[workload]]`},
	{"address taken", workload("127.0.0.1:40342"), `3: workload.listen: 127.0.0.1:40342 is already taken by arc.listen; use another port`},
	{"two workloads of one name", workload("127.0.0.1:1") + workload("127.0.0.1:2"), `5: workload.name: "a" stands there twice; name each workload differently`},
	{"workload name with a slash", "[[workload]]\nname = \"../a\"\nlisten = \"127.0.0.1:1\"", `2: workload.name: "../a" is no name; use at most 32 small letters, digits and hyphens, a letter first`},

	{"workload name of 33 letters", "[[workload]]\nname = \"" + strings.Repeat("a", 33) + "\"\nlisten = \"127.0.0.1:1\"", `2: workload.name: "` + strings.Repeat("a", 33) + `" is no name; use at most 32 small letters, digits and hyphens, a letter first`},

	// hosts: an exact list is what stops DNS rebinding
	{"host with a star", "[imds]\nhosts = [\"*.local\"]", `2: imds.hosts: "*.local" is not a host name; write the bare name, without scheme, port or star`},
	{"host with a port", "[imds]\nhosts = [\"a.local:80\"]", `2: imds.hosts: "a.local:80" is not a host name; write the bare name, without scheme, port or star`},
	{"host with a dot at its end", "[imds]\nhosts = [\"a.local.\"]", `2: imds.hosts: "a.local." is not a host name; write the bare name, without scheme, port or star`},

	{"host with a hyphen in front", "[imds]\nhosts = [\"-a.local\"]", `2: imds.hosts: "-a.local" is not a host name; write the bare name, without scheme, port or star`},
	{"host of 254 bytes", "[imds]\nhosts = [\"" + strings.Repeat("a.", 127) + "\"]", `2: imds.hosts: "` + strings.Repeat("a.", 40) + `…" is not a host name; write the bare name, without scheme, port or star`},
	{"host of 255 bytes", "[imds]\nhosts = [\"" + strings.Repeat("a.", 127) + "a\"]", `2: imds.hosts: "` + strings.Repeat("a.", 40) + `…" is not a host name; write the bare name, without scheme, port or star`},

	// grants
	{"who is nobody", "[[grant]]\nwho = \"telemetry\"\nidentity = \"system\"\nresources = [\"*\"]", `2: grant.who: "telemetry" names nobody; write it as "uid:1001", "user:NAME", "group:NAME" or "listener:NAME"`},
	{"who of no kind", "[[grant]]\nwho = \"pid:1\"\nidentity = \"system\"\nresources = [\"*\"]", `2: grant.who: "pid:1" names nobody; write it as "uid:1001", "user:NAME", "group:NAME" or "listener:NAME"`},
	{"uid that is none", "[[grant]]\nwho = \"uid:4294967295\"\nidentity = \"system\"\nresources = [\"*\"]", `2: grant.who: "uid:4294967295" is not a user id; write a number from 0 to 4294967294`},
	{"uid with a zero in front", "[[grant]]\nwho = \"uid:01\"\nidentity = \"system\"\nresources = [\"*\"]", `2: grant.who: "uid:01" is not a user id; write a number from 0 to 4294967294`},
	{"sid that is none", "[[grant]]\nwho = \"sid:X\"\nidentity = \"system\"\nresources = [\"*\"]", `2: grant.who: "sid:X" is not a security identifier; begin it with S-1-`},
	{"empty identity", "[[grant]]\nwho = \"uid:1\"\nidentity = \"\"\nresources = [\"*\"]", `3: grant.identity: is empty; name one`},
	{"identity with a space", "[[grant]]\nwho = \"uid:1\"\nidentity = \"a b\"\nresources = [\"*\"]", `3: grant.identity: "a b" has a space`},
	{"star in the middle", "[[grant]]\nwho = \"uid:1\"\nidentity = \"system\"\nresources = [\"https://*.net\"]", `4: grant.resources: "https://*.net" has a star before its end; leave the star only at the end`},
	{"resource with a space", "[[grant]]\nwho = \"uid:1\"\nidentity = \"system\"\nresources = [\"a b\"]", `4: grant.resources: "a b" has a character that no resource has`},
	{"no resources", "[[grant]]\nwho = \"uid:1\"\nidentity = \"system\"\nresources = []", `4: grant.resources: is empty; name one`},
	{"resource of 2049 bytes", "[[grant]]\nwho = \"uid:1\"\nidentity = \"system\"\nresources = [\"" + strings.Repeat("r", 2049) + "\"]", `4: grant.resources: "` + strings.Repeat("r", 80) + `…" is longer than 2048 bytes`},

	// upstream
	{"plain http", "[authority]\nurl = \"http://ca.local\"", `2: authority.url: "http://ca.local" is not https; begin it with https://`},
	{"http on loopback", "[token]\nissuer = \"http://127.0.0.1:8443\"", `2: token.issuer: "http://127.0.0.1:8443" is not https; begin it with https://`},
	{"no host", "[token]\ntoken_url = \"https:///token\"", `2: token.token_url: the text is not a URL with scheme and host; write it as "https://host:port"`},
	{"no URL", "[token]\ntoken_url = \"%zz\"", `2: token.token_url: the text is not a URL with scheme and host; write it as "https://host:port"`},
	{"credentials in URL", "[authority]\nurl = \"https://me:hunter2@ca.local\"", `2: authority.url: the URL carries credentials; take them out: no secret belongs in this file`},
	{"query", "[authority]\nurl = \"https://ca.local?a=b\"", `2: authority.url: "https://ca.local?a=b" has a query or fragment; leave it out`},
	{"fragment", "[authority]\nurl = \"https://ca.local#\"", `2: authority.url: "https://ca.local#" has a query or fragment; leave it out`},
	{"port of no machine", "[authority]\nurl = \"https://ca.local:70000\"", `2: authority.url: "https://ca.local:70000" has a port that is none`},
	{"short fingerprint", "[authority]\nroot_sha256 = \"b1946ac9\"", `2: authority.root_sha256: "b1946ac9" is not a SHA-256 of 64 hexadecimal digits`},
	{"fingerprint with other letters", "[authority]\nroot_sha256 = \"" + strings.Repeat("xy", 32) + "\"", `2: authority.root_sha256: "` + strings.Repeat("xy", 32) + `" is not a SHA-256 of 64 hexadecimal digits`},
	{"preset without tenant", "[token]\npreset = \"entra\"\n[key]\nalgorithm = \"RSA-2048\"", `2: token.preset: "entra" needs a tenant; set token.tenant`},
	{"preset with a curve", "[token]\npreset = \"entra\"\ntenant = \"contoso.example\"", `2: token.preset: Entra ID accepts RSA keys only; set key.algorithm = "RSA-2048"`},
	{"tenant with a path", "[token]\ntenant = \"a/b\"", `2: token.tenant: "a/b" is no tenant; write its id or its domain`},
	{"RSA signature, curve key", "[token]\nalg = \"PS256\"", `2: token.alg: "PS256" does not fit key.algorithm "EC-P256"; set token.alg = "auto"`},
	{"curve signature, RSA key", "[token]\nalg = \"ES256\"\n[key]\nalgorithm = \"RSA-2048\"", `2: token.alg: "ES256" does not fit key.algorithm "RSA-2048"; set token.alg = "auto"`},
	{"no such parameter", "[token]\nresource_param = \"scope:\"", `2: token.resource_param: "scope:" is not known; use "entra_scope", "resource", "audience" or "scope:NAME"`},
	{"proxy with credentials", "proxy = \"http://me:hunter2@proxy:3128\"", `1: proxy: the URL carries credentials; put user:password into a file and name it in proxy_credentials_file`},
	{"proxy that is none", "proxy = \"proxy:3128\"", `1: proxy: the text is not a URL with scheme and host; write "environment" or "http://host:port"`},
	{"proxy of another kind", "proxy = \"socks5://proxy:1080\"", `1: proxy: "socks5://proxy:1080" is neither http nor https`},
	{"proxy with a path", "proxy = \"http://proxy/x\"", `1: proxy: "http://proxy/x" has a path; leave it out`},
	{"credentials without proxy", "proxy_credentials_file = \"/etc/p\"", `1: proxy_credentials_file: there is no proxy; set proxy, or leave this out`},
	{"identity twice", identity("", "X") + identity("", "X"), `6: identity.client_id: "X" stands there twice; list each identity once`},
	{"two system-assigned identities", identity("SystemAssigned", "X") + identity("SystemAssigned", "Y"), `8: identity.kind: a second identity is SystemAssigned; a device has one; make this one UserAssigned`},
	{"identity called system", identity("", "system"), `3: identity.client_id: "system" is a word of its own; write the client id`},
}

func workload(listen string) string {
	return "[[workload]]\nname = \"a\"\nlisten = \"" + listen + "\"\n"
}

func identity(kind, client string) string {
	s := "[[identity]]\nname = \"n\"\nclient_id = \"" + client + "\"\n"
	if kind != "" {
		s += "kind = \"" + kind + "\"\n"
	}
	return s
}

func TestEachBadFileIsToldWithLineKeyAndCure(t *testing.T) {
	for _, row := range badFiles {
		t.Run(row.name, func(t *testing.T) {
			_, err := load(row.text)
			if got := errorText(err); got != path+":"+row.want {
				t.Errorf("got  %q\nwant %q", got, path+":"+row.want)
			}
			if strings.Contains(errorText(err), "hunter2") {
				t.Error("a secret stands in the error")
			}
		})
	}
}

func TestEachBadFlagIsToldWithFlagKeyAndCure(t *testing.T) {
	for _, row := range []struct{ key, value, want string }{
		{"log", "xml", `--x: log: "xml" is not known; use "logfmt" or "json"`},
		{"arc.enabled", "yes", `--x: arc.enabled: "yes" is neither true nor false`},
		{"token.max_resources", "many", `--x: token.max_resources: "many" is not a whole number`},
		{"memory_limit", "1", `--x: memory_limit: 1 is not between 16MiB and 1GiB`},
		{"offline_after", "1", `--x: offline_after: "1" is not a duration; write it as "15m" or "24h"`},
		{"arc.listen", "127.0.0.1:1", `--x: arc.listen: port 1 is not held on ::1, where another user could take it; add "[::1]:1"`},
		{"arc.listen", "", `--x: arc.listen: has an empty element; leave it out`},
		{"instance.tags", "a", `--x: instance.tags: "a" is not a pair; write it as key=value`},
		{"nonsense", "1", `--x: nonsense: is not a key that a flag can set`},
		{"grant.who", "uid:1", `--x: grant.who: is not a key that a flag can set`},
		{"arc.", "1", `--x: arc.: is not a key that a flag can set`},
		{"", "1", `--x: is not a key that a flag can set`},
	} {
		_, err := config.Load("", nil, config.Override{Key: row.key, Value: row.value, Flag: "--x"})
		if got := errorText(err); got != row.want {
			t.Errorf("%s=%s:\ngot  %q\nwant %q", row.key, row.value, got, row.want)
		}
	}
}
