package verb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// said is what the verbs of a tree were called with.
type said struct {
	calls  []string
	dir    string
	config string
	names  []string
	tags   map[string]string
	loud   bool
}

// tree is a small program: prog [--config F] [-v] group [--dir D] claim NAME, and prog list.
func tree(s *said) *Command {
	note := func(cmd *Command, args []string) error {
		s.calls = append(s.calls, cmd.CommandPath()+" "+strings.Join(args, ","))
		return nil
	}
	root := &Command{Use: "prog", Short: "A program"}
	root.PersistentFlags().StringVar(&s.config, "config", "", "configuration `file`")
	root.PersistentFlags().BoolVarP(&s.loud, "verbose", "v", false, "say more")
	group := &Command{Use: "group", Short: "A group"}
	group.PersistentFlags().StringVar(&s.dir, "dir", "", "its `directory`")
	claim := &Command{Use: "claim NAME", Aliases: []string{"ticket"}, Short: "Claim a thing", Example: "  prog group claim x", Args: ExactArgs(1), RunE: note}
	ListVar(claim.Flags(), &s.names, "name", "further `names`")
	PairsVar(claim.Flags(), &s.tags, "tag", "`name=value` pairs")
	group.AddCommand(claim, &Command{Use: "secret", Short: "Nobody sees it", Hidden: true, RunE: note})
	list := &Command{Use: "list [KIND]", Short: "List things", Args: MaximumNArgs(1), ValidArgs: []string{"red", "green"}, RunE: note}
	root.AddCommand(list, group, HelpVerb(NoArgs))
	return root
}

func call(t *testing.T, words ...string) (said, string, error) {
	t.Helper()
	s := said{names: []string{"default"}}
	var out strings.Builder
	err := tree(&s).Run(t.Context(), words, &out)
	return s, out.String(), err
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	for _, line := range []string{
		"group claim x --dir D --config C -v",
		"--config C group --dir D claim -v x",
		"--config=C -v group claim --dir=D x",
		"--dir D -v group claim x --config C", // a flag of a verb that follows
		"group ticket -v x --dir D --config C",
	} {
		s, _, err := call(t, strings.Fields(line)...)
		if err != nil || !slices.Equal(s.calls, []string{"prog group claim x"}) || s.dir != "D" || s.config != "C" || !s.loud {
			t.Errorf("%s: %+v, %v", line, s, err)
		}
	}
	if s, _, err := call(t, "group", "claim", "--", "--dir"); err != nil || !slices.Equal(s.calls, []string{"prog group claim --dir"}) || s.dir != "" {
		t.Errorf("behind --: %+v, %v", s, err)
	}
}

func TestListsAndPairsAreRepeatedOrHaveCommas(t *testing.T) {
	s, _, err := call(t, "group", "claim", "x", "--name", "a,b", "--name=c", "--tag", "k=v,l=a=b", "--tag", "m=")
	if err != nil || !slices.Equal(s.names, []string{"a", "b", "c"}) || fmt.Sprint(s.tags) != "map[k:v l:a=b m:]" {
		t.Errorf("%q, %v, %v", s.names, s.tags, err)
	}
	if s, _, err := call(t, "group", "claim", "x"); err != nil || !slices.Equal(s.names, []string{"default"}) || s.tags != nil {
		t.Errorf("not given: %q, %v, %v", s.names, s.tags, err)
	}
	if s, _, err := call(t, "group", "claim", "x", "--name="); err != nil || len(s.names) != 0 {
		t.Errorf("emptied: %q, %v", s.names, err)
	}
	if _, _, err := call(t, "group", "claim", "x", "--tag", "k"); err == nil || !strings.Contains(err.Error(), "name=value") {
		t.Errorf("no pair: %v", err)
	}
}

func TestWrongWordsAreErrorsAndNothingRuns(t *testing.T) {
	for line, want := range map[string]string{
		"lits":                   `unknown command "lits" for "prog"`,
		"group clam":             `unknown command "clam" for "prog group"`,
		"group claim":            "accepts 1 arg(s), received 0",
		"list red green":         "accepts at most 1 arg(s), received 2",
		"list --colour red":      "unknown flag: --colour",
		"list --dir D":           "unknown flag: --dir", // of another group
		"group claim x --dir":    "flag needs an argument: --dir",
		"help nonsense":          `unknown command "nonsense" for "prog"`,
		"group claim x --tag x":  "invalid argument",
		"group claim x -q":       "unknown shorthand flag",
		"group claim x --name x": "",
	} {
		s, _, err := call(t, strings.Fields(line)...)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || len(s.calls) > 0 {
			t.Errorf("%s: %v, want %q; called %q", line, err, want, s.calls)
		}
	}
	root := tree(&said{})
	mine := errors.New("mine")
	root.SetFlagErrorFunc(func(cmd *Command, err error) error { return fmt.Errorf("%s: %w: %w", cmd.Name(), mine, err) })
	if err := root.Run(context.Background(), []string{"list", "--no"}, &strings.Builder{}); !errors.Is(err, mine) || !strings.HasPrefix(err.Error(), "list: ") {
		t.Errorf("the flag's error is %v", err)
	}
}

func TestHelpSaysEverythingButWhatIsHidden(t *testing.T) {
	const want = `A group

Usage:
  prog group [command]

Available Commands:
  claim       Claim a thing

Flags:
      --dir directory   its directory
  -h, --help            help for group

Global Flags:
      --config file   configuration file
  -v, --verbose       say more

Use "prog group [command] --help" for more information about a command.
`
	for _, line := range []string{"group", "group --help", "group -h", "help group", "--help group"} {
		s, out, err := call(t, strings.Fields(line)...)
		if err != nil || out != want || len(s.calls) > 0 {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	_, out, err := call(t, "group", "claim", "--help")
	for _, part := range []string{"  prog group claim NAME [flags]\n", "\nAliases:\n  claim, ticket\n", "\nExamples:\n  prog group claim x\n", "--name names ", "(default default)", "Global Flags:\n      --config file     configuration file\n      --dir directory"} {
		if err != nil || !strings.Contains(out, part) {
			t.Errorf("the help of claim lacks %q: %v\n%s", part, err, out)
		}
	}
}

func TestCompletionOffersWhatMayFollow(t *testing.T) {
	for line, want := range map[string]string{
		"=":                     "group help list",
		"=gr":                   "group",
		"group =":               "claim",
		"group =s":              "", // hidden
		"--config f =l":         "list",
		"list =":                "red green",
		"list =g":               "green",
		"list red =":            "",
		"list --config =":       "", // a file
		"list --config = =":     "", // bash's words of --config=
		"list =--c":             "--config",
		"group claim x =--d":    "--dir",
		"group claim --name =r": "",
		"list -v =r":            "red",
		"group claim -- =--d":   "",
		"nonsense =":            "",
	} {
		_, out, err := call(t, append([]string{completeVerb}, strings.Fields(line)...)...)
		var words []string
		for l := range strings.Lines(out) {
			word, _, tab := strings.Cut(l, "\t")
			if !tab {
				t.Errorf("%s: the line %q has no tab", line, l)
			}
			words = append(words, word)
		}
		if got := strings.Join(words, " "); got != want || err != nil {
			t.Errorf("%q offers %q, want %q; %v", line, got, want, err)
		}
	}
}

func TestEveryShellHasAScriptThatNamesTheProgram(t *testing.T) {
	for _, shell := range Shells() {
		text := Script(shell, "prog")
		if !strings.Contains(text, "prog") || !strings.Contains(text, " "+completeVerb+" ") || strings.Contains(text, "PROGRAM") || strings.Contains(text, "COMPLETE ") {
			t.Errorf("%s:\n%s", shell, text)
		}
	}
	if text := Script("tcsh", "prog"); text != "" {
		t.Errorf("tcsh: %q", text)
	}
}
