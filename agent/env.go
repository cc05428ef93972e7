package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
)

// variables are what a program needs to find the endpoint, in the order in
// which other software parses them.
type variables []struct{ name, value string }

// arcEnv is the pair of the Arc flavour: always both, and never
// IDENTITY_HEADER beside them, which would select another source.
func arcEnv(address string) variables {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		port = "40342"
	}
	return variables{
		{"IDENTITY_ENDPOINT", "http://localhost:" + port + "/metadata/identity/oauth2/token"},
		{"IMDS_ENDPOINT", "http://localhost:" + port},
	}
}

// withProxy adds NO_PROXY where a proxy would capture calls to this machine.
func (v variables) withProxy() variables {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		if os.Getenv(name) != "" {
			return append(v, struct{ name, value string }{"NO_PROXY", "localhost,127.0.0.1,::1,169.254.169.254"})
		}
	}
	return v
}

func (v variables) dotenv() string { return v.lines("") }
func (v variables) shell() string  { return strings.TrimSuffix(v.lines("export "), "\n") }

func (v variables) lines(prefix string) string {
	var s strings.Builder
	for _, x := range v {
		s.WriteString(prefix + x.name + "=" + x.value + "\n")
	}
	return s.String()
}

func (v variables) systemd() string {
	quoted := make([]string, 0, len(v))
	for _, x := range v {
		quoted = append(quoted, `"`+x.name+"="+x.value+`"`)
	}
	return "Environment=" + strings.Join(quoted, " ")
}

// compose is what stands in a service of a compose file. On Linux the name of
// the machine has to be made known to it.
func (v variables) compose() string {
	s := "environment:\n" + v.yaml()
	for _, x := range v {
		if strings.HasPrefix(x.value, "http://host.docker.internal:") {
			s += "extra_hosts:\n  - \"host.docker.internal:host-gateway\"\n"
		}
	}
	return s
}

// k8s is a Secret; a container takes it by envFrom with a secretRef.
func (v variables) k8s(workload string) string {
	name := "postern"
	if workload != "" {
		name += "-" + workload
	}
	return "apiVersion: v1\nkind: Secret\nmetadata:\n  name: " + name + "\nstringData:\n" + v.yaml()
}

func (v variables) yaml() string {
	var s strings.Builder
	for _, x := range v {
		s.WriteString("  " + x.name + ": " + strconv.Quote(x.value) + "\n")
	}
	return s.String()
}

// in writes the variables in a form; false if there is no such form.
func (v variables) in(format, workload string) (text string, ok bool) {
	switch format {
	case "sh":
		return v.shell(), true
	case "dotenv":
		return v.dotenv(), true
	case "systemd":
		return v.systemd(), true
	case "compose":
		return v.compose(), true
	case "k8s":
		return v.k8s(workload), true
	}
	return "", false
}

func (c *cli) envVerb() *verb.Command {
	var format string
	var rotate bool
	long, example := manual("Print the variables with which a program finds the endpoint. With the name of a [[workload]] of the configuration, print its own pair; "+
		"its secret is printed once, when it is made, and kept as a digest only.",
		[]string{"eval \"$(postern env)\"", "sudo postern env telemetry --rotate --format dotenv > telemetry.env"}, "0 printed; 1 the secret was printed before; 2 usage; 7 not permitted")
	cmd := &verb.Command{
		Use: "env [WORKLOAD]", Short: "Print the variables that programs need", Long: long, Example: example, Args: verb.MaximumNArgs(1),
		RunE: func(cmd *verb.Command, args []string) error {
			if _, ok := variables(nil).in(format, ""); !ok { // before a secret is made that nobody would see
				return control.NewFault(control.ExitUsage, "usage", "postern env --format sh", "env: there is no format %q", format)
			}
			vars, err := c.variables(cmd, args, rotate)
			if err != nil {
				return err
			}
			return c.printVariables(vars.withProxy(), format, strings.Join(args, ""))
		},
	}
	cmd.Flags().StringVar(&format, "format", "sh", "sh, dotenv, systemd, compose or k8s")
	c.waits(cmd)
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make a new secret; the old one works for 10 more minutes")
	return cmd
}

func (c *cli) variables(cmd *verb.Command, args []string, rotate bool) (variables, error) {
	if len(args) == 0 {
		cfg, err := c.loadConfig()
		if err != nil {
			return nil, err
		}
		return arcEnv(cfg.Arc.Listen[0]), nil
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	var w control.Workload
	err = c.within(cmd.Context(), "env", func(ctx context.Context) (err error) {
		w, err = client.Workload(ctx, control.WorkloadRequest{Name: args[0], Rotate: rotate})
		return err
	})
	if err != nil {
		return nil, err
	}
	return variables{{"IDENTITY_ENDPOINT", w.Endpoint}, {"IDENTITY_HEADER", w.Secret}}, nil
}

func (c *cli) printVariables(v variables, format, workload string) error {
	if c.json {
		doc := map[string]string{}
		for _, x := range v {
			doc[x.name] = x.value
		}
		return c.printDocument("env", map[string]any{"variables": doc})
	}
	text, _ := v.in(format, workload)
	c.print("%s", strings.TrimSuffix(text, "\n"))
	return nil
}
