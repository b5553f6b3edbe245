// What a shell runs at each Tab: it asks `upcall __complete` for candidates, and shows them in its own way. The answer has a line
// `<value><tab><description>` for each candidate, and a last line `:<flags>`, the flags being `files` and `unfinished`.
//
// Words are passed on as arguments: nothing that is on the line is evaluated.

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

/**
 * bash splits words at `:` and `=` (COMP_WORDBREAKS), and replaces only the last piece. So the pieces are joined, and what is in
 * front of the last piece is taken off each candidate. bash-completion has helpers for it; this works without it, too.
 */
const bash = `# Completion of upcall for bash 4 and later, with or without bash-completion.
_upcall() {
  COMPREPLY=()
  local IFS=$' \\t\\n' line=\${COMP_LINE:0:COMP_POINT} words=() i piece trimmed word value flags='' answer=() quoted
  for ((i = 0; i <= COMP_CWORD; i++)); do
    piece=\${COMP_WORDS[i]}
    trimmed=\${line#"\${line%%[![:space:]]*}"}
    if ((i == COMP_CWORD)); then piece=$trimmed; fi
    if ((i > 0)) && [[ $trimmed == "$line" ]]; then
      words[\${#words[@]} - 1]+=$piece
    else
      words+=("$piece")
    fi
    line=\${trimmed#"$piece"}
  done
  word=\${words[\${#words[@]} - 1]}
  while IFS= read -r value; do
    if [[ $value == :* ]]; then flags=$value; else answer+=("\${value%%$'\\t'*}"); fi
  done < <("\${COMP_WORDS[0]}" __complete -- "\${words[@]:1}" 2> /dev/null)
  if [[ $flags == *files* ]]; then
    compopt -o default -o bashdefault 2> /dev/null
    return
  fi
  if [[ $flags == *unfinished* ]]; then compopt -o nospace 2> /dev/null; fi
  local cut='' breaks=\${COMP_WORDBREAKS//[^:=]/}
  if [[ -n $breaks && $word == *[$breaks]* ]]; then cut=\${word%"\${word##*[$breaks]}"}; fi
  for value in "\${answer[@]}"; do
    value=\${value#"$cut"}
    if [[ $value == *[!A-Za-z0-9_./:=@%+,-]* ]]; then
      printf -v quoted %q "$value"
      value=$quoted
    fi
    COMPREPLY+=("$value")
  done
}
complete -F _upcall upcall
`

const zsh = `#compdef upcall
# Completion of upcall for zsh.
_upcall() {
  local line flags=''
  local -a items
  for line in "\${(@f)$("\${(Q)words[1]}" __complete -- "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2> /dev/null)}"; do
    if [[ $line == :* ]]; then
      flags=$line
    elif [[ -n $line ]]; then
      items+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
    fi
  done
  if [[ $flags == *files* ]]; then
    [[ $PREFIX == --*=* ]] && compset -P '*='
    _files
  elif [[ $flags == *unfinished* ]]; then
    _describe -V upcall items -S ''
  else
    _describe -V upcall items
  fi
}
if [[ \${funcstack[1]} == _upcall ]]; then
  _upcall "$@"
elif (( $+functions[compdef] )); then
  compdef _upcall upcall
fi
`

const fish = `# Completion of upcall for fish 3 and later.
function __upcall_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($words[1] __complete -- $words[2..-1] "$current" 2> /dev/null)
    if string match -q -- ':*files*' "$answer[-1]"
        set -l option (string match -r -- '^--[^=]*=' "$current")
        for path in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' "$current"))
            printf '%s%s\\n' "$option" $path
        end
    end
    if test (count $answer) -gt 1
        printf '%s\\n' $answer[1..-2]
    end
end
complete -c upcall -f -a '(__upcall_complete)'
`

export const scripts: Record<Shell, string> = { bash, zsh, fish }
