package main

import (
	"context"
	"slices"
	"strings"

	"postern/agent/control"
	"postern/agent/verb"
)

// check is one question of `postern check`. Its id is stable and has a page in
// firmware-notes/checks.
type check struct {
	id, section string
	worst       verdict // the most that it may say
	run         func(ctx context.Context, f *facts) finding
}

// checks are all questions, in the order in which they are asked.
func checks() []check {
	return slices.Concat(configChecks(), systemChecks(), endpointChecks(), identityChecks(), authorityChecks(), clockChecks(), storeChecks(), deviceChecks())
}

type checkFlags struct {
	list, strict bool
	only, skip   []string
	asUser       string
}

func (c *cli) checkVerb() *verb.Command {
	var f checkFlags
	long, example := manual("Look for what is wrong with this device's identity and say how to put it right. It changes nothing and works without network.",
		[]string{"postern check", "sudo postern check --as-user telemetry --only group-membership,client-self-test"},
		"0 no errors; 2 usage; 10 errors, with --strict warnings too")
	cmd := &verb.Command{
		Use: "check", Aliases: []string{"doctor"}, Short: "Look for what is wrong, and how to put it right", Long: long, Example: example,
		RunE: func(cmd *verb.Command, _ []string) error { return c.check(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.list, "list", false, "list the checks instead of asking them")
	verb.ListVar(flags, &f.only, "only", "`ids` of the checks to ask")
	verb.ListVar(flags, &f.skip, "skip", "`ids` of the checks to leave out")
	flags.StringVar(&f.asUser, "as-user", "", "`name` of the account whose programs want tokens")
	flags.BoolVar(&f.strict, "strict", false, "let warnings count as errors")
	return cmd
}

func (c *cli) check(ctx context.Context, f checkFlags) error {
	chosen, err := chooseChecks(f)
	if err != nil {
		return err
	}
	if f.list {
		return c.listChecks(chosen)
	}
	facts, err := c.gather(ctx, f.asUser)
	if err != nil {
		return err
	}
	defer facts.close()
	report := checkReport{Schema: "postern.check/1", Checks: make([]checkLine, 0, len(chosen))}
	for _, one := range chosen {
		line := ask(ctx, one, facts)
		line.Fix = c.complete(line.Fix)
		report.add(line)
		if !c.json {
			c.showCheck(report, line)
		}
	}
	if c.json {
		err = c.printJSON(report)
	} else {
		c.print("\n%d ok, %d warnings, %d errors, %d skipped", report.OK, report.Warnings, report.Errors, report.Skipped)
	}
	if err == nil && (report.Errors > 0 || f.strict && report.Warnings > 0) {
		return exitCode(control.ExitCheck)
	}
	return err
}

// ask runs one check; it cannot say worse than its table entry allows.
func ask(ctx context.Context, one check, f *facts) checkLine {
	found := f.blocked(one)
	if found.verdict == "" {
		found = one.run(ctx, f)
	}
	if found.verdict == failed && one.worst == warning {
		found.verdict = warning
	}
	return checkLine{ID: one.id, Section: one.section, Status: found.verdict, Message: found.text, Fix: found.fix, Chain: found.chain}
}

// chooseChecks applies --only and --skip; an unknown id is a usage error with
// the nearest one that exists.
func chooseChecks(f checkFlags) ([]check, error) {
	all := checks()
	for _, id := range slices.Concat(f.only, f.skip) {
		if !slices.ContainsFunc(all, func(c check) bool { return c.id == id }) {
			return nil, control.NewFault(control.ExitUsage, "unknown-check", "postern check --list", "check: there is no check %q%s", id, nearestCheck(all, id))
		}
	}
	return slices.DeleteFunc(all, func(c check) bool {
		return len(f.only) > 0 && !slices.Contains(f.only, c.id) || slices.Contains(f.skip, c.id)
	}), nil
}

func nearestCheck(all []check, id string) string {
	names := make([]string, 0, len(all))
	for _, c := range all {
		names = append(names, c.id)
	}
	best := closest(names, id, 5)
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

func (c *cli) listChecks(list []check) error {
	for _, one := range list {
		if c.json {
			if err := c.printDocument("check-question", map[string]string{"id": one.id, "section": one.section, "worst": string(one.worst)}); err != nil {
				return err
			}
			continue
		}
		c.print("%-10s %-22s %s", one.section, one.id, one.worst)
	}
	return nil
}

// only names the check as a command that asks it again.
func only(id string, flags ...string) string { //nolint:unparam // on Windows nobody gives flags
	return strings.Join(append([]string{"postern check --only", id}, flags...), " ")
}
