package main

import (
	"context"
	"errors"

	"postern/agent/control"
	"postern/agent/verb"
)

// onboarding is what connect and reconnect take.
type onboarding struct {
	authority, root, claimFile, identity string
	consume                              bool // erase the claim file once the device is connected
}

func (o *onboarding) flags(cmd *verb.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.authority, "authority", "", "`URL` of the authority (default: as the claim says)")
	flags.StringVar(&o.root, "root-sha256", "", "SHA-256 `fingerprint` of the authority's root certificate (default: as the claim says)")
	flags.StringVar(&o.claimFile, "claim-file", "", "`file` with the claim, - for stdin (default: $CREDENTIALS_DIRECTORY/postern.claim)")
	flags.StringVar(&o.identity, "identity", "", "`name` or client id of the [[identity]] of the configuration that the claim is for, where the authority cannot say it")
}

func (c *cli) connectVerb() *verb.Command {
	var o onboarding
	var erase bool
	long, example := manual("Give this device an identity: a new key is made here, and the claim is traded for its certificate.",
		[]string{"sudo postern connect --claim-file claim", "ssh ca sudo postern authority claim gw-0042 | sudo postern connect --claim-file -", "postern connect --claim-file /data/factory/claim --consume   # in a first-boot script"},
		"0 connected; 1 failed; 2 usage; 6 the authority cannot be reached; 7 not permitted; 9 the claim was refused")
	cmd := &verb.Command{
		Use: "connect", Short: "Give this device an identity", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			if erase {
				return eraseWhenTold(c.stdin, o.claimFile)
			}
			if !o.consume {
				return c.onboard(cmd.Context(), o, false)
			}
			if o.claimFile == "" || o.claimFile == "-" {
				return control.NewFault(control.ExitUsage, "consume", "postern connect --claim-file FILE --consume", "--consume needs the file that it is to erase")
			}
			var e eraser
			c.beforeDrop = func(ctx context.Context) error { return e.start(ctx, o.claimFile) }
			err := c.onboard(cmd.Context(), o, false)
			return errors.Join(c.consumed(o.claimFile, e.erase, err), e.end())
		},
	}
	o.flags(cmd)
	c.waits(cmd)
	cmd.Flags().BoolVar(&o.consume, "consume", false, "erase the claim file once the device is connected, for a first boot: also when it was connected before")
	cmd.Flags().BoolVar(&erase, "erase-when-told", false, "erase the claim file at a word on stdin, and do nothing else")
	_ = cmd.Flags().MarkHidden("erase-when-told")
	return cmd
}

func (c *cli) reconnectVerb() *verb.Command {
	var o onboarding
	long, example := manual("Give this device's identity a new key and certificate, when it is Expired, Rejected or was exposed. The claim must be one for re-onboarding.",
		[]string{"sudo postern reconnect --claim-file claim", "ssh ca sudo postern authority claim gw-0042 --reonboard | sudo postern reconnect --claim-file -"},
		"0 connected; 1 failed; 2 usage; 4 there is no identity; 6 the authority cannot be reached; 7 not permitted; 9 the claim was refused")
	cmd := &verb.Command{
		Use: "reconnect", Short: "Give this device's identity a new key", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error { return c.onboard(cmd.Context(), o, true) },
	}
	o.flags(cmd)
	c.waits(cmd)
	return cmd
}

// onboard lets the running agent do the work, or does it on the databases itself.
func (c *cli) onboard(ctx context.Context, o onboarding, again bool) error {
	verb := map[bool]string{false: "connect", true: "reconnect"}[again]
	claim, err := c.secret(ctx, verb, "--claim-file", o.claimFile, "postern.claim")
	if err != nil {
		return err
	}
	req := control.ConnectRequest{AuthorityURL: o.authority, RootSHA256: o.root, Claim: claim.Reveal(), Identity: o.identity, Again: again}
	running, err := c.viaAgent(ctx, "connect", req)
	if !running {
		err = c.alone(ctx, func(ctx context.Context, g *graph) error { return g.Connect(ctx, req, c.tick) })
	}
	if err != nil {
		return err
	}
	if running {
		c.next("postern check")
	} else {
		c.next("sudo postern run   # or: sudo systemctl start postern")
	}
	return nil
}
