package main

import "testing"

func TestVariablesInTheFormsOfContainers(t *testing.T) {
	bridge := variables{{"IDENTITY_ENDPOINT", "http://host.docker.internal:40400/msi/token"}, {"IDENTITY_HEADER", "c2VjcmV0"}}
	for _, c := range []struct {
		v            variables
		format, name string
		want         string
	}{
		{bridge, "compose", "telemetry", `environment:
  IDENTITY_ENDPOINT: "http://host.docker.internal:40400/msi/token"
  IDENTITY_HEADER: "c2VjcmV0"
extra_hosts:
  - "host.docker.internal:host-gateway"
`},
		{arcEnv("127.0.0.1:40342"), "compose", "", `environment:
  IDENTITY_ENDPOINT: "http://localhost:40342/metadata/identity/oauth2/token"
  IMDS_ENDPOINT: "http://localhost:40342"
`},
		{bridge, "k8s", "telemetry", `apiVersion: v1
kind: Secret
metadata:
  name: postern-telemetry
stringData:
  IDENTITY_ENDPOINT: "http://host.docker.internal:40400/msi/token"
  IDENTITY_HEADER: "c2VjcmV0"
`},
	} {
		if got, ok := c.v.in(c.format, c.name); !ok || got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.format, got, c.want)
		}
	}
}
