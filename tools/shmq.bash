# bash completion for shmq and shmqd                                       -*- shell-script -*-
# SPDX-License-Identifier: Apache-2.0
#
# Options come from the programs' own help, names of topics and groups from the running bus: nothing
# here has to be changed when a command grows an option.

# Words of the common options that stand before: the bus that is meant, for asking it.
_shmq_common() {
    local i
    common=()
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
        -b | --bus | -V | --vhost | --runtime-dir)
            if ((i + 1 < cword)); then
                common+=("${words[i]}" "${words[i + 1]}")
                ((i++))
            fi
            ;;
        --bus=* | --vhost=* | --runtime-dir=*) common+=("${words[i]}") ;;
        esac
    done
}

# The first words that are not options: noun, verb, operands. Values of options are left out, as far as
# the help says that an option takes one.
_shmq_operands() {
    local i help
    operands=()
    help=$("${words[0]}" "${@}" --help 2>/dev/null)
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
        --*=*) ;;
        -*) grep -qE -- "(^| )${words[i]}(, --[a-z-]+)? [A-Z]" <<<"$help" && ((i++)) ;;
        *) operands+=("${words[i]}") ;;
        esac
    done
}

_shmq_ask() {
    timeout 2 "${words[0]}" "${common[@]}" -q "$@" 2>/dev/null
}

_shmq_options() {
    "${words[0]}" "$@" --help 2>/dev/null | grep -oE -- '^ {2,6}(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+'
}

# "choices" of an option, read from where the tool lists them when it is given a wrong one.
_shmq_choices() {
    "${words[0]}" "$@" '?' x x x 2>&1 | sed -n 's/.*is none of \([a-z|-]*\).*/\1/p' | tr '|' ' '
}

_shmq() {
    local cur prev words cword common operands replies=""
    if declare -F _init_completion >/dev/null; then
        _init_completion -n := || return
    else
        words=("${COMP_WORDS[@]}")
        cword=$COMP_CWORD
        cur=${words[cword]}
        prev=${words[cword - 1]}
    fi
    local nouns="topic group client pub sub status doctor journal help"
    _shmq_common
    _shmq_operands
    if ((${#operands[@]} > 0)); then
        case ${operands[0]} in
        topic | group | client | journal) ((${#operands[@]} > 1)) && _shmq_operands "${operands[@]:0:2}" ;;
        *) _shmq_operands "${operands[0]}" ;;
        esac
    fi
    local noun=${operands[0]:-} verb=${operands[1]:-}

    case $prev in
    -f | --file) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --runtime-dir | --state-dir) COMPREPLY=($(compgen -d -- "$cur")); return ;;
    -g | --group)
        [[ $verb ]] && COMPREPLY=($(compgen -W "$(_shmq_ask group list "$verb")" -- "$cur"))
        return
        ;;
    --from) COMPREPLY=($(compgen -W "earliest latest" -- "$cur")); return ;;
    --overflow | --producers | --timestamps | --durable | --confirm | --read)
        COMPREPLY=($(compgen -W "$(_shmq_choices $noun ${noun:+$([[ $noun == topic ]] && echo "$verb")} "$prev")" -- "$cur"))
        return
        ;;
    -b | --bus | -V | --vhost | -p | --partitions | --ring | --max-message | --group-linger | -m | --message | \
        --sync-interval | --retain-bytes | --retain-time | \
        -k | --key | --key-separator | -H | --header | --partition | -n | --count | --size | --rate | \
        --timeout | -t | --format)
        [[ $noun == sub && $prev == -t || $prev != -t ]] && return
        ;;
    esac

    if [[ $cur == -* ]]; then
        case $noun in
        "") replies=$(_shmq_options) ;;
        topic | group | client | journal) replies=$(_shmq_options "$noun" ${verb:+"$verb"}) ;;
        *) replies=$(_shmq_options "$noun") ;;
        esac
        COMPREPLY=($(compgen -W "${replies:-$(_shmq_options)}" -- "$cur"))
        return
    fi

    case $noun:${#operands[@]} in
    :0) replies=$nouns ;;
    help:1) replies=$nouns ;;
    topic:1) replies="create list describe alter delete purge" ;;
    group:1) replies="list describe delete" ;;
    client:1) replies="list describe" ;;
    journal:1) replies="verify dump stat repair" ;;
    journal:2)
        COMPREPLY=($(compgen -W "$(_shmq_ask topic list)" -- "$cur") $(compgen -f -- "$cur"))
        return
        ;;
    topic:2) [[ $verb == create || $verb == list ]] || replies=$(_shmq_ask topic list) ;;
    group:2 | pub:1 | sub:1) replies=$(_shmq_ask topic list) ;;
    group:3) [[ $verb == list ]] || replies=$(_shmq_ask group list "${operands[2]}") ;;
    client:2) [[ $verb == describe ]] && replies=$(_shmq_ask client list) ;;
    esac
    COMPREPLY=($(compgen -W "$replies" -- "$cur"))
}

_shmqd() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    case $prev in
    --config) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --runtime-dir | --state-dir) COMPREPLY=($(compgen -d -- "$cur")); return ;;
    --bus) return ;;
    esac
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" --help 2>/dev/null |
        grep -oE -- '(^| )--[a-z-]+' | tr -d ' ' | sort -u)" -- "$cur"))
}

complete -F _shmq shmq
complete -F _shmqd shmqd
