package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"postern/agent/authority/site"
	"postern/agent/control"
	"postern/agent/verb"
)

func (c *cli) authorityStatusVerb(f *authorityFlags) *verb.Command {
	long, example := manual("Show the site authority.", []string{"sudo postern authority status", "sudo postern authority status --json"}, "0 shown; 3 none runs")
	return &verb.Command{
		Use: "status", Short: "Show it", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			return c.ask(cmd.Context(), f, func(ctx context.Context, r registrar) error {
				info, err := r.Info(ctx)
				if err != nil || c.json {
					return firstError(err, func() error { return c.printDocument("authority", info) })
				}
				c.print("%s   tenant %s   root %s until %s", info.URL, info.TenantID, info.RootSHA256, info.RootUntil.Format(time.DateOnly))
				c.print("%d machines, %d identities, %d resources, %d audit records", info.Machines, info.Identities, info.Resources, info.AuditRecords)
				return nil
			})
		},
	}
}

// done says what was done.
func (c *cli) done(what string) func() error {
	return func() error {
		c.tick(what)
		return nil
	}
}

func firstError(err error, otherwise func() error) error {
	if err != nil {
		return err
	}
	return otherwise()
}

func (c *cli) authorityClaimVerb(f *authorityFlags) *verb.Command {
	var req site.ClaimRequest
	long, example := manual("Print a claim: the right to connect one machine, once. It is a secret; hand it over in a file or a pipe.",
		[]string{"sudo postern authority claim gw-0042 > claim", "sudo postern authority claim gw-0042 --reonboard --ttl 1h > claim"}, "0 printed; 1 the machine exists; 3 no authority runs")
	cmd := &verb.Command{
		Use: "claim MACHINE", Short: "Print a claim for one machine", Long: long, Example: example, Args: verb.ExactArgs(1),
		RunE: func(cmd *verb.Command, args []string) error {
			req.Machine = args[0]
			return c.ask(cmd.Context(), f, func(ctx context.Context, r registrar) error {
				claim, err := r.CreateClaim(ctx, req)
				if errors.Is(err, site.ErrExists) {
					return control.NewFault(control.ExitFailed, "exists", "sudo postern authority claim "+quoted(args[0])+" --reonboard   # the same identity, a new key", "authority: %w", err)
				}
				if err != nil {
					return err
				}
				if c.json {
					return c.printDocument("claim", map[string]any{"machine": claim.Machine, "claim": claim.Token.Reveal(), "expires": claim.Expires})
				}
				c.print("%s", claim.Token.Reveal())
				c.say("good for one connect of %s until %s", claim.Machine, claim.Expires.Format(time.RFC3339))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&req.Group, "group", "", "resource group of the machine")
	cmd.Flags().StringVar(&req.Location, "location", "", "where it stands, free text")
	verb.PairsVar(cmd.Flags(), &req.Tags, "tag", "`name=value` pairs")
	cmd.Flags().DurationVar(&req.Life, "ttl", 24*time.Hour, "how long it can be used")
	cmd.Flags().BoolVar(&req.Reonboard, "reonboard", false, "for a machine that exists: same identity, new key, old certificates revoked")
	return cmd
}

// underAuthority is where a verb of the authority stands: "identity create NAME".
type underAuthority struct{ parent, use string }

// examples are the verb's with words for its arguments, here and for an
// authority elsewhere.
func (u underAuthority) examples(more string) []string {
	words := strings.NewReplacer("NAME", "telemetry", "MACHINE", "gw-0042", "IDENTIFIER", "https://vault.azure.net")
	line := "sudo postern authority " + u.parent + " " + words.Replace(u.use)
	return []string{line, line + " " + more}
}

// plainVerb is a verb that changes one thing and says so.
func (c *cli) plainVerb(f *authorityFlags, at underAuthority, short string, args int, do func(ctx context.Context, r registrar, args []string) (string, error)) *verb.Command {
	long, example := manual(short+".", at.examples("--dir /srv/ca"), "0 done; 1 refused; 3 no authority runs")
	return &verb.Command{
		Use: at.use, Short: short, Long: long, Example: example, Args: verb.ExactArgs(args),
		RunE: func(cmd *verb.Command, args []string) error {
			return c.ask(cmd.Context(), f, func(ctx context.Context, r registrar) error {
				said, err := do(ctx, r, args)
				if err == nil {
					c.say("✓ %s", said)
				}
				return err
			})
		},
	}
}

func (c *cli) authorityIdentityVerb(f *authorityFlags) *verb.Command {
	parent := &verb.Command{
		Use: "identity", Short: "User-assigned identities",
		RunE: func(cmd *verb.Command, _ []string) error { return cmd.Help() },
	}
	var group string
	create := c.plainVerb(f, underAuthority{"identity", "create NAME"}, "Make a user-assigned identity", 1, func(ctx context.Context, r registrar, args []string) (string, error) {
		id, err := r.CreateIdentity(ctx, args[0], group)
		return "identity " + id.Name + ", client id " + id.ClientID, err
	})
	create.Flags().StringVar(&group, "group", "", "resource group")
	var force bool
	remove := c.plainVerb(f, underAuthority{"identity", "delete NAME"}, "Delete a user-assigned identity", 1, func(ctx context.Context, r registrar, args []string) (string, error) {
		return "identity " + args[0] + " is gone", r.DeleteIdentity(ctx, args[0], force)
	})
	remove.Flags().BoolVar(&force, "force", false, "also while it is assigned")
	var renew bool
	assign := c.plainVerb(f, underAuthority{"identity", "assign NAME MACHINE"}, "Assign an identity to a machine, which fetches its certificate by itself", 2,
		func(ctx context.Context, r registrar, args []string) (string, error) {
			if renew {
				return args[0] + " may fetch a new certificate on " + args[1], r.RenewAssignment(ctx, args[0], args[1])
			}
			return args[0] + " is assigned to " + args[1] + "; it is there within 5 minutes", r.Assign(ctx, args[0], args[1])
		})
	assign.Flags().BoolVar(&renew, "renew", false, "let a lapsed certificate be fetched again")
	disable := func(use, short, said string, disabled bool) *verb.Command {
		return c.plainVerb(f, underAuthority{"identity", use}, short, 1, func(ctx context.Context, r registrar, args []string) (string, error) {
			return args[0] + said, r.DisableIdentity(ctx, args[0], disabled)
		})
	}
	parent.AddCommand(create, remove, assign,
		disable("disable NAME", "Refuse an identity tokens and certificates, on every machine", " gets no more tokens; those that are out live on, at most 24 h", true),
		disable("enable NAME", "Let a disabled identity have them again", " may have tokens again", false),
		c.plainVerb(f, underAuthority{"identity", "unassign NAME MACHINE"}, "Take an identity from a machine; its certificates there are revoked at once", 2,
			func(ctx context.Context, r registrar, args []string) (string, error) {
				return args[0] + " is no longer on " + args[1], r.Unassign(ctx, args[0], args[1])
			}),
		c.listVerb(f, "identity", "List identities", func(ctx context.Context, r registrar) ([]row, error) {
			list, err := r.Identities(ctx)
			return rowsOf(list, func(id site.Identity) string {
				line := []string{id.Kind, id.Name, "client_id=" + id.ClientID, "on " + strings.Join(orNone(id.Machines), ",")}
				if id.Disabled {
					line = append(line, "disabled")
				}
				return strings.Join(line, "  ")
			}), err
		}))
	return parent
}

// row is one line of a list and its JSON form.
type row struct {
	text string
	doc  any
}

func rowsOf[T any](list []T, text func(T) string) []row {
	rows := make([]row, 0, len(list))
	for _, v := range list {
		rows = append(rows, row{text: text(v), doc: v})
	}
	return rows
}

func (c *cli) listVerb(f *authorityFlags, parent, short string, list func(context.Context, registrar) ([]row, error)) *verb.Command {
	long, example := manual(short+".", underAuthority{parent, "list"}.examples("--json"), "0 listed; 3 no authority runs")
	return &verb.Command{
		Use: "list", Short: short, Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			return c.ask(cmd.Context(), f, func(ctx context.Context, r registrar) error {
				rows, err := list(ctx, r)
				for _, x := range rows {
					if c.json {
						err = firstError(err, func() error { return c.printDocument("authority-"+parent, x.doc) })
						continue
					}
					c.print("%s", x.text)
				}
				return err
			})
		},
	}
}

func (c *cli) authorityMachineVerb(f *authorityFlags) *verb.Command {
	parent := &verb.Command{
		Use: "machine", Short: "Machines",
		RunE: func(cmd *verb.Command, _ []string) error { return cmd.Help() },
	}
	parent.AddCommand(
		c.listVerb(f, "machine", "List machines", func(ctx context.Context, r registrar) ([]row, error) {
			list, err := r.Machines(ctx)
			return rowsOf(list, func(m site.Machine) string {
				state := "last contact " + ago(time.Now(), m.LastContact) //nolint:forbidigo // the verb runs beside the authority
				if !m.Disconnected.IsZero() {
					state = "disconnected " + m.Disconnected.Format(time.DateOnly)
				}
				return strings.Join([]string{m.Name, "client_id=" + m.ClientID, state}, "  ")
			}), err
		}),
		c.plainVerb(f, underAuthority{"machine", "delete MACHINE"}, "Delete a machine with its identity", 1, func(ctx context.Context, r registrar, args []string) (string, error) {
			return args[0] + " is gone", r.DeleteMachine(ctx, args[0])
		}))
	return parent
}

func (c *cli) authorityResourceVerb(f *authorityFlags) *verb.Command {
	parent := &verb.Command{
		Use: "resource", Short: "Resources that tokens are issued for",
		RunE: func(cmd *verb.Command, _ []string) error { return cmd.Help() },
	}
	var life time.Duration
	add := c.plainVerb(f, underAuthority{"resource", "add IDENTIFIER"}, "Register a resource; a star at the end stands for everything that begins so", 1,
		func(ctx context.Context, r registrar, args []string) (string, error) {
			return args[0] + " is registered", r.AddResource(ctx, site.Resource{
				Identifier: args[0], Wildcard: strings.HasSuffix(args[0], "*"), Life: life,
			})
		})
	add.Flags().DurationVar(&life, "token-life", 24*time.Hour, "how long its tokens live, 5 min to 24 h")
	parent.AddCommand(add,
		c.plainVerb(f, underAuthority{"resource", "remove IDENTIFIER"}, "Forget a resource", 1, func(ctx context.Context, r registrar, args []string) (string, error) {
			return args[0] + " is forgotten", r.RemoveResource(ctx, args[0])
		}),
		c.listVerb(f, "resource", "List resources", func(ctx context.Context, r registrar) ([]row, error) {
			list, err := r.Resources(ctx)
			rows := rowsOf(list, func(x site.Resource) string { return x.Identifier + "  " + x.Life.String() })
			for i, x := range list {
				rows[i].doc = map[string]any{"identifier": x.Identifier, "wildcard": x.Wildcard, "token_life_s": int64(x.Life / time.Second)}
			}
			return rows, err
		}))
	return parent
}

func (c *cli) authorityRevokeVerb(f *authorityFlags) *verb.Command {
	var serial string
	long, example := manual("Withdraw a machine's certificates, or one by its serial number. Its next token request is refused.",
		[]string{"sudo postern authority revoke gw-0042", "sudo postern authority revoke --serial 117209483275"}, "0 withdrawn; 1 unknown; 3 no authority runs")
	cmd := &verb.Command{
		Use: "revoke [MACHINE]", Short: "Withdraw certificates", Long: long, Example: example, Args: verb.MaximumNArgs(1),
		RunE: func(cmd *verb.Command, args []string) error {
			if (len(args) == 1) == (serial != "") {
				return control.NewFault(control.ExitUsage, "usage", "postern authority revoke --help", "revoke: name a machine or a --serial, not both")
			}
			return c.ask(cmd.Context(), f, func(ctx context.Context, r registrar) error {
				if serial != "" {
					return firstError(r.RevokeCertificate(ctx, serial), c.done("the certificate "+serial+" is withdrawn"))
				}
				return firstError(r.RevokeMachine(ctx, args[0]), c.done("the certificates of "+args[0]+" are withdrawn"))
			})
		},
	}
	cmd.Flags().StringVar(&serial, "serial", "", "decimal serial `number` of one certificate")
	return cmd
}

func (c *cli) authorityAuditVerb(f *authorityFlags) *verb.Command {
	var from uint64
	long, example := manual("Show what the authority decided, oldest first, one JSON record a line.", []string{"sudo postern authority audit", "sudo postern authority audit --from 1184"}, "0 shown; 3 no authority runs")
	cmd := &verb.Command{
		Use: "audit", Short: "Show what it decided", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error {
			return c.ask(cmd.Context(), f, func(ctx context.Context, r registrar) error {
				for next := from; ; {
					page, err := r.Audit(ctx, site.AuditQuery{Since: next})
					if err != nil || len(page.Lines) == 0 {
						return err
					}
					for _, line := range page.Lines {
						c.print("%s", line)
					}
					next = page.Next
				}
			})
		},
	}
	cmd.Flags().Uint64Var(&from, "from", 0, "first sequence `number`")
	return cmd
}
