package config_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"postern/agent/config"
)

// goodValues are values at the edge of what is accepted, and the form in which
// they are kept. A guard that is too eager fails here.
var goodValues = []struct{ key, value, kept string }{
	{"state_dir", `"/"`, `"/"`},
	{"state_dir", `"/persistent/shared//postern/."`, `"/persistent/shared/postern"`},
	{"state_dir", `"/srv/Gerät 7/postern"`, `"/srv/Gerät 7/postern"`},
	{"state_dir", `""`, `""`},
	{"group", `"Hybrid agent extension applications"`, `"Hybrid agent extension applications"`},
	{"group", `0`, `"0"`},
	{"user", `"942:943"`, `"942:943"`},
	{"offline_after", `"1m"`, `"1m"`},
	{"offline_after", `"168h"`, `"168h"`},
	{"offline_after", `"90m30s"`, `"1h30m30s"`},
	{"memory_limit", `"16MiB"`, `"16MiB"`},
	{"memory_limit", `16777217`, `"16777217"`},
	{"memory_limit", `"1 GiB"`, `"1GiB"`},
	{"proxy", `"environment"`, `"environment"`},
	{"proxy", `"https://[2001:db8::1]:3128/"`, `"https://[2001:db8::1]:3128"`},

	{"arc.listen", `["[::1]:1", "127.0.0.1:1"]`, `["[::1]:1", "127.0.0.1:1"]`},
	{"arc.listen", `["127.0.0.1:65535", "[0:0:0:0:0:0:0:1]:65535"]`, `["127.0.0.1:65535", "[::1]:65535"]`},
	{"arc.listen", `["[::ffff:127.0.0.1]:7", "[::1]:7"]`, `["127.0.0.1:7", "[::1]:7"]`},
	{"arc.listen", `["127.0.0.1:1", "[::1]:1", "127.0.0.1:2", "[::1]:2"]`, `["127.0.0.1:1", "[::1]:1", "127.0.0.1:2", "[::1]:2"]`},
	{"imds.listen", `["127.0.0.1:8080"]`, `["127.0.0.1:8080"]`},
	{"imds.listen", `["[::ffff:169.254.169.254]:80"]`, `["169.254.169.254:80"]`},
	{"imds.hosts", `["under_score.Local", "xn--grt-0ra", "fd00::1"]`, `["under_score.local", "xn--grt-0ra", "fd00::1"]`},

	{"authority.url", `"https://ca.site.local:8443//"`, `"https://ca.site.local:8443"`},
	{"authority.url", `"https://192.0.2.1"`, `"https://192.0.2.1"`},
	{"authority.root_sha256", `"` + strings.Repeat("AB", 32) + `"`, `"` + strings.Repeat("ab", 32) + `"`},
	{"token.issuer", `"https://Login.example/Tenant/"`, `"https://Login.example/Tenant/"`},
	{"token.tenant", `"7B1E4A52-9D0C-4A5E-8F63-0C2B6F1D9E37"`, `"7b1e4a52-9d0c-4a5e-8f63-0c2b6f1d9e37"`},
	{"token.resource_param", `"scope:https://a/.default openid"`, `"scope:https://a/.default openid"`},
	{"token.alg", `"ES256"`, `"ES256"`},
	{"token.max_resources", `4_096`, `4096`},
	{"instance.tags", `{ "shift lead" = "", line = "a=b" }`, `{ "line" = "a=b", "shift lead" = "" }`},
	{"audit.max_records", `0x64`, `100`},
}

// fileOf is a file that sets one key.
func fileOf(key, value string) string {
	table, name, ok := strings.Cut(key, ".")
	if !ok {
		return key + " = " + value + "\n"
	}
	return "[" + table + "]\n" + name + " = " + value + "\n"
}

func kept(t *testing.T, c config.Config, key string) string {
	t.Helper()
	for _, v := range c.Values() {
		if v.Key == key {
			return v.Text
		}
	}
	t.Fatalf("no value is called %s", key)
	return ""
}

func TestValuesAtTheEdgeAreAcceptedAndKeptInOneForm(t *testing.T) {
	for _, row := range goodValues {
		t.Run(row.key+" "+row.value, func(t *testing.T) {
			if got := kept(t, mustLoad(t, fileOf(row.key, row.value)), row.key); got != row.kept {
				t.Errorf("kept as %s, want %s", got, row.kept)
			}
			if got := kept(t, mustLoad(t, fileOf(row.key, row.kept)), row.key); got != row.kept {
				t.Errorf("what was kept becomes %s", got)
			}
		})
	}
}

func TestWorkloadsListenOnLoopbackAndBridges(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1:1", "[::1]:1", "10.88.0.1:1", "172.17.0.1:1", "192.168.122.1:1", "169.254.1.1:1", "[fd00::1]:1", "[fe80::1%docker0]:1",
	} {
		if c := mustLoad(t, workload(address)); c.Workloads[0].Listen != address {
			t.Errorf("%s became %s", address, c.Workloads[0].Listen)
		}
	}
}

func TestEachFormOfWhoIsAccepted(t *testing.T) {
	for _, who := range []string{
		"uid:0", "uid:4294967294", "user:telemetry", "group:plant operators", "listener:127.0.0.1:40342", "listener:workload:web",
		"workload:web", "sid:S-1-5-21-1-2-3-1001",
	} {
		text := fmt.Sprintf("[[grant]]\nwho = %q\nidentity = \"system\"\nresources = [\"*\", \"https://plant/*\", \"urn:x\"]\n", who)
		if c := mustLoad(t, text); c.Grants[0].Who != who {
			t.Errorf("%s became %s", who, c.Grants[0].Who)
		}
	}
}

// All spellings of TOML for the same thing are the same thing.
func TestInlineAndDottedSpellingsAreAccepted(t *testing.T) {
	want := mustLoad(t, "[imds]\nenabled = true\nallow = \"anyone\"\n\n[[grant]]\nwho = \"uid:1\"\nidentity = \"system\"\nresources = [\"a\"]\n")
	for _, text := range []string{
		"imds.enabled = true\nimds.allow = 'anyone'\ngrant = [{ who = \"uid:1\", identity = \"system\", resources = [\"a\"] }]",
		"imds = { enabled = true, allow = \"anyone\" }\n[[grant]]\n\"who\" = '''uid:1'''\nidentity = \"system\"\nresources = [\n  \"a\", # all\n]",
		"[[\"grant\"]]\nwho = \"\"\"\nuid:1\"\"\"\nidentity = \"\\u0073ystem\"\nresources = ['a']\n['imds']\nenabled = true\nallow = \"anyone\"",
	} {
		if got := mustLoad(t, text); !same(got, want) {
			t.Errorf("says something else:\n%s", text)
		}
	}
}

func TestOriginsOfRepeatedTablesAreTheirLines(t *testing.T) {
	c := mustLoad(t, "[[grant]]\nwho = \"uid:1\"\nidentity = \"system\"\nresources = [\"a\"]\n\n[[grant]]\nresources = [\"a\"]\nidentity = \"system\"\nwho = \"uid:2\"\n")
	want := map[string]string{
		"grant[0].who": "line 2", "grant[0].identity": "line 3", "grant[0].resources": "line 4",
		"grant[1].who": "line 9", "grant[1].identity": "line 8", "grant[1].resources": "line 7",
	}
	for _, v := range c.Values() {
		if w, ok := want[v.Key]; ok && v.Origin.String() != w {
			t.Errorf("%s comes from %s, want %s", v.Key, v.Origin, w)
		}
	}
}

func TestEverySizeAndDurationInBoundsIsReadAsItIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := config.Size(rapid.Int64Range(16<<20, 1<<30).Draw(t, "size"))
		after := time.Duration(rapid.Int64Range(int64(time.Minute), int64(168*time.Hour)).Draw(t, "after"))
		c, err := load(fmt.Sprintf("memory_limit = %q\noffline_after = %q\n", size, after))
		if err != nil {
			t.Fatal(err)
		}
		if c.MemoryLimit != size || c.OfflineAfter != after {
			t.Fatalf("%d became %d, %s became %s", size, c.MemoryLimit, after, c.OfflineAfter)
		}
		for _, v := range c.Values() {
			if v.Key == "memory_limit" && v.Text != strconv.Quote(size.String()) {
				t.Fatalf("%s is printed as %s", size, v.Text)
			}
		}
	})
}

// The values hold no secret and no pointer into the configuration: changing
// what was handed out changes nothing.
func TestLoadingTwiceGivesTwoConfigurations(t *testing.T) {
	a, b := mustLoad(t, everything), mustLoad(t, everything)
	a.Arc.Listen[0], a.Grants[0].Who, a.Instance.Tags["line"] = "x", "x", "x"
	if b.Arc.Listen[0] == "x" || b.Grants[0].Who == "x" || b.Instance.Tags["line"] == "x" {
		t.Error("they share memory")
	}
}
