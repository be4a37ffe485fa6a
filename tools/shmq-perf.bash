# bash completion for shmq-perf                                            -*- shell-script -*-
# SPDX-License-Identifier: Apache-2.0
#
# Commands and options come from the program's own help, transports and rows from its own lists: nothing here has
# to be changed when it learns a new one.

_shmq_perf_commands() {
    "${words[0]}" --help 2>/dev/null | sed -n '/^Commands/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'
}

_shmq_perf_options() {
    "${words[0]}" "$@" --help 2>/dev/null | grep -oE -- '^ {2,6}(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+'
}

# The words of a choice, as its error names them.
_shmq_perf_choices() {
    "${words[0]}" "$command" "$1" '?' 2>&1 | sed -n 's/.*is none of \([a-z|-]*\).*/\1/p' | tr '|' ' '
}

# Those that this build can measure.
_shmq_perf_transports() {
    "${words[0]}" transports 2>/dev/null | awk '$NF == "yes" { print $1 }'
}

# Those of durable, as the error for an unknown one names them.
_shmq_perf_rows() {
    "${words[0]}" durable --only '?' 2>&1 | sed -n 's/.*there are \(.*\);.*/\1/p' | tr -d ,
}

# Completes the last part of a list such as shmq,pipe,un.
_shmq_perf_list() {
    local before="" last=$cur
    [[ $cur == *,* ]] && before=${cur%,*}, && last=${cur##*,}
    COMPREPLY=($(compgen -P "$before" -W "$1" -- "$last"))
    compopt -o nospace 2>/dev/null
}

_shmq_perf() {
    local cur prev words cword command="" i
    COMPREPLY=()
    if declare -F _init_completion >/dev/null; then
        _init_completion -n = || return
    else
        words=("${COMP_WORDS[@]}")
        cword=$COMP_CWORD
        cur=${words[cword]}
        prev=${words[cword - 1]}
    fi
    for ((i = 1; i < cword; i++)); do
        [[ " $(_shmq_perf_commands | tr '\n' ' ')" == *" ${words[i]} "* ]] && command=${words[i]} && break
    done

    case $prev in
    --plot | --hgrm) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --runtime-dir | --state-dir) COMPREPLY=($(compgen -d -- "$cur")); return ;;
    -t | --transport) _shmq_perf_list "$(_shmq_perf_transports)"; return ;;
    --only) _shmq_perf_list "$(_shmq_perf_rows)"; return ;;
    -s | --size) _shmq_perf_list "16 64 256 1K 4K 64K"; return ;;
    --wait | --format | --timestamps)
        COMPREPLY=($(compgen -W "$(_shmq_perf_choices "$prev")" -- "$cur"))
        return
        ;;
    --history) COMPREPLY=($(compgen -W "1G 10G" -- "$cur")); return ;;
    --ring) COMPREPLY=($(compgen -W "64K 512K 1M 16M 64M 256M" -- "$cur")); return ;;
    -b | --bus | -V | --vhost | --producers | --consumers | --groups | --partitions | --duration | --rounds | \
        --cpus | --classes | --messages | --rate | --batch | --poll)
        return
        ;;
    esac

    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$(_shmq_perf_options ${command:+"$command"})" -- "$cur"))
    elif [[ ! $command ]]; then
        COMPREPLY=($(compgen -W "$(_shmq_perf_commands)" -- "$cur"))
    fi
}

complete -F _shmq_perf shmq-perf
