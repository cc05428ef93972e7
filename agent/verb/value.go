package verb

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// ListVar adds a flag that may be repeated and that takes several values with
// commas between them. What to holds is its default.
func ListVar(flags *pflag.FlagSet, to *[]string, name, usage string) {
	flags.Var(&list{to: to}, name, usage)
}

type list struct {
	to    *[]string
	given bool // the default has gone
}

func (l *list) String() string {
	if l.to == nil {
		return "" // pflag asks a zero value
	}
	return strings.Join(*l.to, ",")
}

func (l *list) Type() string { return "strings" }

func (l *list) Set(text string) error {
	if !l.given {
		*l.to, l.given = nil, true
	}
	if text != "" {
		*l.to = append(*l.to, strings.Split(text, ",")...)
	}
	return nil
}

// PairsVar adds a flag of name=value pairs, which may be repeated and have
// commas between them.
func PairsVar(flags *pflag.FlagSet, to *map[string]string, name, usage string) {
	flags.Var(&pairs{to}, name, usage)
}

type pairs struct{ to *map[string]string }

func (p *pairs) String() string { return "" }

func (p *pairs) Type() string { return "pairs" }

func (p *pairs) Set(text string) error {
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%s must be formatted as name=value", pair)
		}
		if *p.to == nil {
			*p.to = map[string]string{}
		}
		(*p.to)[name] = value
	}
	return nil
}
