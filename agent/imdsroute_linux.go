package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"postern/agent/control"
	"postern/agent/verb"
)

// imdsAddress is fixed in some SDKs, so the address itself has to exist here.
const imdsAddress = "169.254.169.254"

// imdsRouteVerb is for the unit postern-imds.service, which is root's: the
// agent has no right to change routes.
func (c *cli) imdsRouteVerb() *verb.Command {
	cmd := &verb.Command{Use: "imds-route", Short: "Make 169.254.169.254 an address of this device", Hidden: true}
	child := func(name, short string, do func(context.Context) error) *verb.Command {
		long, example := manual(short+".", []string{"sudo postern imds-route " + name, "sudo postern imds-route " + name + "; ip route show table local " + imdsAddress}, "0 done; 1 a cloud's own metadata service answers there, or the route cannot be changed")
		return &verb.Command{Use: name, Short: short, Long: long, Example: example, RunE: func(cmd *verb.Command, _ []string) error { return do(cmd.Context()) }}
	}
	cmd.AddCommand(child("add", "Add the local route, unless a metadata service answers there", addIMDSRoute),
		child("remove", "Remove the local route", removeIMDSRoute))
	return cmd
}

// addIMDSRoute looks whether somebody else answers before it takes the address
// over. Images move between a bench and a cloud, so it is asked at each start.
func addIMDSRoute(ctx context.Context) error {
	if isLocal(ctx, imdsAddress) {
		return nil
	}
	cloud := cloudOf("/sys/class/dmi/id")
	if cloud == "" && connects(ctx, net.JoinHostPort(imdsAddress, "80")) {
		cloud = "a network"
	}
	if cloud != "" {
		return control.NewFault(control.ExitFailed, "imds-conflict", "sudo systemctl disable --now postern-imds.socket   # programs find the Arc flavour by: postern discovery on",
			"imds-route: this is %s with a metadata service of its own on %s", cloud, imdsAddress)
	}
	return ipRoute(ctx, "add")
}

func removeIMDSRoute(ctx context.Context) error {
	if !isLocal(ctx, imdsAddress) {
		return nil
	}
	return ipRoute(ctx, "del")
}

func ipRoute(ctx context.Context, what string) error {
	words, err := exec.CommandContext(ctx, "ip", "route", what, "local", imdsAddress+"/32", "dev", "lo").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return control.NewFault(control.ExitFailed, "imds-route", "sudo apt-get install iproute2   # or busybox with ip", "imds-route: %w", err)
	}
	if err != nil {
		return control.NewFault(control.ExitFailed, "imds-route", "sudo ip route "+what+" local "+imdsAddress+"/32 dev lo", "imds-route: %s: %w", strings.TrimSpace(string(words)), err)
	}
	return nil
}

// isLocal reports whether the address can be bound: it is this device's.
func isLocal(ctx context.Context, address string) bool {
	var config net.ListenConfig
	l, err := config.ListenPacket(ctx, "udp4", net.JoinHostPort(address, "0"))
	if err != nil {
		return false
	}
	_ = l.Close() // nothing was said
	return true
}

// connects reports whether anybody answers; a refusal is an answer, too.
func connects(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp4", address)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
	}
	_ = conn.Close() // nothing was said
	return true
}

// cloudOf names the cloud whose virtual machine this is, by what its firmware
// says; empty for a device of one's own.
func cloudOf(dmi string) string {
	for _, cloud := range []struct{ file, holds, name string }{
		{"chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "an Azure virtual machine"},
		{"sys_vendor", "Amazon EC2", "an EC2 instance"},
		{"product_name", "Google Compute Engine", "a Google Compute Engine instance"},
		{"chassis_asset_tag", "OpenStack", "an OpenStack instance"},
	} {
		raw, err := os.ReadFile(fmt.Sprintf("%s/%s", dmi, cloud.file))
		if err == nil && strings.Contains(string(raw), cloud.holds) {
			return cloud.name
		}
	}
	return ""
}
