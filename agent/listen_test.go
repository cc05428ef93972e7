//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"postern/agent/control"
)

// TestWorkloadAnswersToTheNamesOfItsTable: a container asks for the machine by
// a name, which env prints; any other name may be rebinding.
func TestWorkloadAnswersToTheNamesOfItsTable(t *testing.T) {
	p := newPlace(t)
	listen := map[string]string{}
	for name, hosts := range map[string]string{"usual": "", "named": "hosts = [\"Gateway.plant\", \"fd00::1\"]\n"} {
		address, release, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		listen[name] = address
		p.append(t, fmt.Sprintf("[[workload]]\nname = %q\nlisten = %q\n%s", name, address, hosts))
	}
	agent := p.run(t)
	for workload, names := range map[string]map[string]int{
		"usual": {"host.docker.internal": 401, "127.0.0.1": 401, "gateway.plant": 400, "[fd00::1]": 400},
		"named": {"gateway.plant": 401, "[fd00::1]": 401, "127.0.0.1": 401, "host.docker.internal": 400, "evil.plant": 400},
	} {
		_, port, _ := strings.Cut(listen[workload], ":")
		for name, want := range names {
			for _, host := range []string{name, name + ":" + port} {
				got, body := getAs(t, "http://"+listen[workload]+"/msi/token?api-version=2019-08-01&resource=https://vault.azure.net", host)
				if got != want { // 401: without the secret
					t.Errorf("%s as %s: %d %s, want %d", workload, host, got, body, want)
				}
			}
		}
	}
	agent.stop(t)
}

// alone starts the agent of p in a network namespace that has loopback alone.
func alone(t *testing.T, p place) *process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not run: a network namespace needs root; the tier of root plays this")
	}
	return begin(t, func(cmd *exec.Cmd) {
		p.use(cmd)
		shell, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = []string{"sh", "-c", "ip link set lo up && exec \"$0\" run", cmd.Path}
		cmd.Path = shell
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	})
}

func TestMetadataAddressThatIsNotHereIsSaidWithWhatToDo(t *testing.T) {
	p := newPlace(t)
	p.append(t, "[imds]\nenabled = true\n")
	agent := alone(t, p)
	const want = "fix: sudo ip route add local 169.254.169.254/32 dev lo"
	if code, said := agent.exit(t), agent.text(); code != control.ExitFailed || !strings.Contains(said, want) || !strings.Contains(said, "no device of this machine has the address") {
		t.Errorf("exit code %d: %s\nwant %q", code, said, want)
	}
}

// TestWorkloadWaitsForItsBridgeAlone: a bridge that a container's daemon makes
// later keeps nothing else from being served, and is served when it is there.
func TestWorkloadWaitsForItsBridgeAlone(t *testing.T) {
	p := newPlace(t)
	p.append(t, "[[workload]]\nname = \"web\"\nlisten = \"172.17.0.1:40400\"\n")
	agent := alone(t, p)
	agent.says(t, "workload is served once its address is there")
	agent.says(t, "event=ready")
	inside := func(args ...string) string {
		out, err := exec.Command("nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", agent.Process.Pid)}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	inside("ip", "addr", "add", "172.17.0.1/32", "dev", "lo") // which every kernel has
	got := inside("curl", "-s", "-m", "20", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: host.docker.internal",
		"http://172.17.0.1:40400/msi/token?api-version=2019-08-01&resource=https://vault.azure.net")
	if got != "401" { // without the secret
		t.Errorf("the workload is answered %s, want 401", got)
	}
	agent.stop(t)
}

// TestInstanceShowsTheMachineAsItsAuthorityKnowsIt compares the document with
// the authority's record.
func TestInstanceShowsTheMachineAsItsAuthorityKnowsIt(t *testing.T) {
	p, ca := enrolled(t)
	agent := p.run(t)
	var record struct {
		VMID       string `json:"vm_id"`
		ResourceID string `json:"resource_id"`
	}
	list := mustDo(t, p, "authority", "machine", "list", "--json", "--dir", p.dir+"/ca")
	if err := json.Unmarshal([]byte(firstLine(list)), &record); err != nil || record.VMID == "" {
		t.Fatalf("%v in %s", err, list)
	}
	var shown struct {
		Compute struct{ VMID, ResourceID, Version, OSType string }
	}
	status, body := getAs(t, "http://"+p.arc+"/metadata/instance?api-version=2021-02-01", "localhost")
	if err := json.Unmarshal([]byte(body), &shown); err != nil || status != http.StatusOK {
		t.Fatalf("%v in %d %s", err, status, body)
	}
	if c := shown.Compute; c.VMID != record.VMID || c.ResourceID != record.ResourceID || c.Version == "" || c.OSType != "Linux" {
		t.Errorf("shown is %+v, recorded %+v", c, record)
	}
	agent.stop(t)
	ca.stop(t)
}

// getAs sends one GET under a name.
func getAs(t *testing.T, url, host string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("Metadata", "true")
	direct := &http.Transport{DisableKeepAlives: true} // whatever proxy this machine has
	resp, err := direct.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}
