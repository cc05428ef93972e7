package verb

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// completeVerb is how the shells' scripts ask: the words before the cursor,
// and behind an equals sign, so that no shell drops it, the one that is begun.
const completeVerb = "__complete"

// Shells are those that Script knows.
func Shells() []string { return []string{"bash", "zsh", "fish", "powershell"} }

// Script is the completion script of the program for a shell; empty if there
// is none. Where the program offers nothing, the shell offers files.
func Script(shell, program string) string {
	script := map[string]string{"bash": bash, "zsh": zsh, "fish": fish, "powershell": powershell}[shell]
	return strings.NewReplacer("PROGRAM", program, "COMPLETE", completeVerb).Replace(script)
}

const bash = `# bash completion of PROGRAM
__start_PROGRAM()
{
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\t'*}")
    done < <("${COMP_WORDS[0]}" COMPLETE "${COMP_WORDS[@]:1:COMP_CWORD-1}" "=${COMP_WORDS[COMP_CWORD]}" 2>/dev/null)
}
complete -o default -F __start_PROGRAM PROGRAM
`

const zsh = `#compdef PROGRAM
_PROGRAM()
{
    local -a found
    found=("${(@f)$("${words[1]}" COMPLETE "${(@)words[2,CURRENT-1]}" "=${words[CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        found=("${(@)${(@)found%$'\t'}/$'\t'/:}")
        _describe PROGRAM found
    else
        _files
    fi
}
if [ "${funcstack[1]}" = "_PROGRAM" ]; then
    _PROGRAM
else
    compdef _PROGRAM PROGRAM
fi
`

const fish = `# fish completion of PROGRAM
function __PROGRAM_offers
    set -l before (commandline -opc)
    set -l begun (commandline -ct)
    $before[1] COMPLETE $before[2..-1] "=$begun" 2>/dev/null
end
complete -c PROGRAM -e
complete -c PROGRAM -n 'test (count (__PROGRAM_offers)) -gt 0' -f -a '(__PROGRAM_offers)'
`

const powershell = `# PowerShell completion of PROGRAM
Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($begun, $line, $cursor)
    $before = @($line.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursor } | ForEach-Object { $_.ToString() })
    $words = @($before | Select-Object -Skip 1)
    & $before[0] COMPLETE @words "=$begun" 2>$null | ForEach-Object {
        $value, $about = $_ -split [char]9, 2
        if (-not $about) { $about = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $about)
    }
}
`

// complete prints what may stand where the last word is begun, one a line,
// with a sentence behind a tab.
func (c *Command) complete(words []string) {
	if len(words) == 0 {
		return
	}
	begun, before := strings.TrimPrefix(words[len(words)-1], "="), words[:len(words)-1]
	found, _, args := c.find(before)
	if n := len(before); n > 0 {
		// bash makes a word of the = in --flag=value
		if last := before[n-1]; begun == "=" || last == "=" || strings.HasPrefix(last, "-") && found.takesNext(last) {
			return // the value of a flag
		}
	}
	offer := func(word, about string) {
		if strings.HasPrefix(word, begun) {
			_, _ = fmt.Fprintf(c.out, "%s\t%s\n", word, about)
		}
	}
	if strings.HasPrefix(begun, "-") {
		found.allFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				_, about := pflag.UnquoteUsage(f)
				offer("--"+f.Name, about)
			}
		})
		return
	}
	if len(args) > 0 {
		return
	}
	for _, v := range found.children {
		if !v.Hidden {
			offer(v.Name(), v.Short)
		}
	}
	for _, value := range found.ValidArgs {
		offer(value, "")
	}
}
