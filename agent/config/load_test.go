package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern/agent/config"
)

const path = "/etc/postern/postern.toml"

// load reads text as the file.
func load(text string, flags ...config.Override) (config.Config, error) {
	return config.Load(path, func(string) ([]byte, error) { return []byte(text), nil }, flags...)
}

func mustLoad(t *testing.T, text string, flags ...config.Override) config.Config {
	t.Helper()
	c, err := load(text, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsWithoutAFile(t *testing.T) {
	c, err := config.Load("", func(string) ([]byte, error) { t.Fatal("read"); return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		key       string
		got, want any
	}{
		{"group", c.Group, "himds"},
		{"log", c.Log, "logfmt"},
		{"log_level", c.LogLevel, "info"},
		{"clock", c.Clock, "auto"},
		{"offline_after", c.OfflineAfter, 15 * time.Minute},
		{"memory_limit", c.MemoryLimit, config.Size(28 << 20)},
		{"arc", c.Arc, config.Arc{Enabled: true, Listen: []string{"127.0.0.1:40342", "[::1]:40342"}}},
		{"imds", c.IMDS, config.IMDS{Listen: []string{"169.254.169.254:80"}, Allow: "granted"}},
		{"authority", c.Authority, config.Authority{Driver: "stepca", Assignments: true}},
		{"token", c.Token, config.Token{Cloud: "public", Auth: "private_key_jwt", Alg: "auto", AssertionAud: "token_endpoint", ResourceParam: "entra_scope", MaxResources: 128}},
		{"key", c.Key, config.Key{Algorithm: "EC-P256", Protection: "file"}},
		{"audit", c.Audit, config.Audit{MaxRecords: 2000}},
		{"path", c.Path(), ""},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s: %+v, want %+v", row.key, row.got, row.want)
		}
	}
	if c.StateDir != "" || c.AllowRemoteState || c.Proxy != "" || len(c.Grants)+len(c.Workloads)+len(c.Identities) != 0 {
		t.Errorf("more than the defaults: %+v", c)
	}
}

const everything = `
state_dir = "/persistent/postern/"
runtime_dir = "/run/p"
tokens_dir = "/run/p/tokens"
group = 943
user = "postern:himds"
log = "json"
log_level = "debug"
clock = "trusted"
offline_after = "1h30m"
memory_limit = 33554432
proxy = "http://proxy.plant.local:3128/"
proxy_credentials_file = "/etc/postern/proxy"
allow_remote_state = true

[arc]
enabled = false
listen = ["127.0.0.1:1234", "[::1]:1234"]

[imds]
enabled = true
listen = ["169.254.169.254:80", "127.0.0.1:8080"]
allow = "anyone"
hosts = ["IMDS.local", "10.0.0.1"]

[[workload]]
name = "telemetry"
listen = "172.17.0.1:40400"
identities = ["system", "7B1E4A52-9D0C-4A5E-8F63-0C2B6F1D9E37"]
resources = ["https://vault.azure.net", "https://plant/*"]

[[workload]]
name = "web"
listen = "[fd00::1]:40401"
hosts = ["host.containers.internal"]

[[grant]]
who = "user:telemetry"
identity = "7B1E4A52-9D0C-4A5E-8F63-0C2B6F1D9E37"
resources = ["*"]

[[grant]]
who = "uid:1001"
identity = "system"
resources = ["https://vault.azure.net"]

[authority]
url = "https://ca.site.local:8443/"
root_sha256 = "B1:94:6A:C9:24:92:D2:34:7C:62:35:B4:D2:61:11:84:B1:94:6A:C9:24:92:D2:34:7C:62:35:B4:D2:61:11:84"
ca_file = "/etc/postern/ca.pem"
assignments = false

[token]
issuer = "https://login.site.local/Tenant/"
token_url = "https://login.site.local/token"
auth = "tls_client_auth"
alg = "RS256"
assertion_aud = "issuer"
resource_param = "scope:read write"
send_x5c = true
roots = "/etc/postern/roots.pem"
max_resources = 64

[[identity]]
kind = "SystemAssigned"
name = "gw-0042"
client_id = "gw-0042"
object_id = "00000000-0000-0000-0000-00000000ABCD"

[[identity]]
name = "telemetry"
client_id = "7B1E4A52-9D0C-4A5E-8F63-0C2B6F1D9E37"
tenant_id = "t"
resource_id = "/subscriptions/S/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/telemetry"

[key]
algorithm = "RSA-2048"

[instance]
name = "gw-0042"
location = "plant-7"
subscription_id = "s"
resource_group = "g"
[instance.tags]
line = "2"
"shift lead" = "A. \"Q\" \\ B"

[audit]
max_records = 500
`

func TestEveryKeyIsRead(t *testing.T) {
	const guid = "7b1e4a52-9d0c-4a5e-8f63-0c2b6f1d9e37"
	c := mustLoad(t, everything)
	for _, row := range []struct {
		key       string
		got, want any
	}{
		{"state_dir", c.StateDir, "/persistent/postern"},
		{"runtime_dir", c.RuntimeDir, "/run/p"},
		{"tokens_dir", c.TokensDir, "/run/p/tokens"},
		{"group", c.Group, "943"},
		{"user", c.User, "postern:himds"},
		{"log", c.Log, "json"},
		{"log_level", c.LogLevel, "debug"},
		{"clock", c.Clock, "trusted"},
		{"offline_after", c.OfflineAfter, 90 * time.Minute},
		{"memory_limit", c.MemoryLimit, config.Size(32 << 20)},
		{"proxy", c.Proxy, "http://proxy.plant.local:3128"},
		{"proxy_credentials_file", c.ProxyCredentialsFile, "/etc/postern/proxy"},
		{"allow_remote_state", c.AllowRemoteState, true},
		{"arc", c.Arc, config.Arc{Listen: []string{"127.0.0.1:1234", "[::1]:1234"}}},
		{"imds", c.IMDS, config.IMDS{Enabled: true, Listen: []string{"169.254.169.254:80", "127.0.0.1:8080"}, Allow: "anyone", Hosts: []string{"imds.local", "10.0.0.1"}}},
		{"workload", c.Workloads, []config.Workload{
			{Name: "telemetry", Listen: "172.17.0.1:40400", Hosts: []string{"host.docker.internal"}, Identities: []string{"system", guid}, Resources: []string{"https://vault.azure.net", "https://plant/*"}},
			{Name: "web", Listen: "[fd00::1]:40401", Hosts: []string{"host.containers.internal"}},
		}},
		{"grant", c.Grants, []config.Grant{
			{Who: "user:telemetry", Identity: guid, Resources: []string{"*"}},
			{Who: "uid:1001", Identity: "system", Resources: []string{"https://vault.azure.net"}},
		}},
		{"authority", c.Authority, config.Authority{
			Driver: "stepca", URL: "https://ca.site.local:8443", CAFile: "/etc/postern/ca.pem",
			RootSHA256: "b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184",
		}},
		{"token", c.Token, config.Token{
			Issuer: "https://login.site.local/Tenant/", TokenURL: "https://login.site.local/token", Cloud: "public", Auth: "tls_client_auth", Alg: "RS256",
			AssertionAud: "issuer", ResourceParam: "scope:read write", SendX5C: true, Roots: "/etc/postern/roots.pem", MaxResources: 64,
		}},
		{"identity", c.Identities, []config.Identity{
			{Kind: "SystemAssigned", Name: "gw-0042", ClientID: "gw-0042", ObjectID: "00000000-0000-0000-0000-00000000abcd"},
			{Kind: "UserAssigned", Name: "telemetry", ClientID: guid, TenantID: "t", ResourceID: "/subscriptions/S/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/telemetry"},
		}},
		{"key", c.Key, config.Key{Algorithm: "RSA-2048", Protection: "file"}},
		{"instance", c.Instance, config.Instance{
			Name: "gw-0042", Location: "plant-7", SubscriptionID: "s", ResourceGroup: "g", Tags: map[string]string{"line": "2", "shift lead": `A. "Q" \ B`},
		}},
		{"audit", c.Audit, config.Audit{MaxRecords: 500}},
		{"path", c.Path(), path},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", row.key, row.got, row.want)
		}
	}
}

func TestFlagWinsOverFileWinsOverDefault(t *testing.T) {
	c := mustLoad(t, "log = \"json\"\n\nlog_level = \"warn\"\n",
		config.Override{Key: "log_level", Value: "debug", Flag: "--verbose"},
		config.Override{Key: "arc.listen", Value: "127.0.0.1:5000,[::1]:5000", Flag: "--listen"},
		config.Override{Key: "instance.tags", Value: "line=2,shift=b", Flag: "--tags"},
		config.Override{Key: "arc.enabled", Value: "true", Flag: "--arc"},
		config.Override{Key: "audit.max_records", Value: "100", Flag: "--records"},
		config.Override{Key: "memory_limit", Value: "1GiB", Flag: "--memory"},
		config.Override{Key: "group", Value: "943", Flag: "--group"},
	)
	if c.LogLevel != "debug" || c.Log != "json" || c.Clock != "auto" || c.Arc.Listen[1] != "[::1]:5000" || c.Instance.Tags["shift"] != "b" ||
		c.Audit.MaxRecords != 100 || c.MemoryLimit != 1<<30 || c.Group != "943" {
		t.Errorf("got %+v", c)
	}
	origins := map[string]string{}
	for _, v := range c.Values() {
		origins[v.Key] = v.Origin.String()
	}
	for key, want := range map[string]string{
		"log": "line 1", "log_level": "--verbose", "arc.listen": "--listen", "clock": "default", "key.algorithm": "default",
	} {
		if origins[key] != want {
			t.Errorf("%s comes from %s, want %s", key, origins[key], want)
		}
	}
}

func TestAByteOrderMarkIsNotAKey(t *testing.T) {
	if c := mustLoad(t, "\ufefflog = \"json\"\r\n"); c.Log != "json" {
		t.Errorf("got %+v", c)
	}
}

func TestAFlagPutsTheFileRight(t *testing.T) {
	c := mustLoad(t, "[token]\npreset = \"entra\"\ntenant = \"contoso.example\"\n",
		config.Override{Key: "key.algorithm", Value: "RSA-2048", Flag: "--key-algorithm"})
	if c.Token.Preset != "entra" {
		t.Errorf("got %+v", c.Token)
	}
}

func TestAFileThatCannotBeReadKeepsItsReason(t *testing.T) {
	_, err := config.Load(path, func(p string) ([]byte, error) { return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist} })
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "config: open /etc/postern/postern.toml: file does not exist" {
		t.Errorf("got %v", err)
	}
	unsafe := errors.New("mode is 0666, others could write it")
	_, err = config.Load(path, func(string) ([]byte, error) { return []byte("log = \"json\""), unsafe })
	if !errors.Is(err, unsafe) {
		t.Errorf("a file that others could write was believed: %v", err)
	}
}

func TestAllProblemsAreToldInTheOrderOfTheFile(t *testing.T) {
	_, err := load("clok = \"auto\"\nlog = \"xml\"\n\n[arc]\nlisten = [\"0.0.0.0:1\"]\n\n[[grant]]\nidentity = \"system\"\nresources = [\"a\"]\n",
		config.Override{Key: "clock", Value: "sundial", Flag: "--clock"})
	want := `--clock: clock: "sundial" is not known; use "auto" or "trusted"
/etc/postern/postern.toml:1: clok: is not a known key; did you mean clock?
/etc/postern/postern.toml:2: log: "xml" is not known; use "logfmt" or "json"
/etc/postern/postern.toml:5: arc.listen: "0.0.0.0:1" listens on every interface; name one address
/etc/postern/postern.toml:7: grant.who: is missing; add it to this [[grant]]`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	var problems config.Problems
	var one *config.Error
	if !errors.As(err, &problems) || len(problems) != 5 || !errors.As(err, &one) || one.Flag != "--clock" {
		t.Errorf("problems %v, first %v", problems, one)
	}
}

func TestAConfigurationThatIsRefusedIsNotReturned(t *testing.T) {
	c, err := load("log = \"json\"\nclok = 1\n")
	if err == nil || !reflect.DeepEqual(c, config.Config{}) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestLimitsOfTheFile(t *testing.T) {
	repeat := func(n int, element func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(element(i))
		}
		return b.String()
	}
	grant := func(int) string { return "[[grant]]\nwho=\"uid:1\"\nidentity=\"system\"\nresources=[\"*\"]\n" }
	for _, row := range []struct {
		name, text, err string
	}{
		{"256 KiB", "#" + strings.Repeat(" ", config.MaxSize-1), ""},
		{"one byte more", "#" + strings.Repeat(" ", config.MaxSize), path + ": is larger than 262144 bytes"},
		{"1000 grants", repeat(1000, grant), ""},
		{"1001 grants", repeat(1001, grant), path + ":1: grant: stands there 1001 times, at most 1000 are allowed"},
		{"257 tags", "[instance.tags]\n" + repeat(257, func(i int) string { return fmt.Sprintf("t%d = \"\"\n", i) }), path + ":1: instance.tags: has 257 elements, at most 256 are allowed"},
		{"list of 257", "[imds]\nhosts=[" + strings.Repeat(`"a",`, 257) + "]", path + ":2: imds.hosts: has 257 elements, at most 256 are allowed"},
	} {
		_, err := load(row.text)
		if got := errorText(err); got != row.err {
			t.Errorf("%s: got %q, want %q", row.name, got, row.err)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
