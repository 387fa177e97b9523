# What latency.sh and throughput.sh have in common. They source it when they have parsed their options: it takes the
# other arguments, attaches the TAPs, and sees to it that at the end they are detached, the processes $caller and
# $listener end, and the folder $files is removed.
# shellcheck shell=sh
# shellcheck disable=SC2034 # The scripts use the variables.

shift $((OPTIND - 1))
if [ $# -lt 3 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
client=$1 server=$2 address=$3
shift 3
tapbridge=${TAPBRIDGE:-tapbridge}
command -v jq >/dev/null || { echo "$0 needs jq: apt-get install jq" >&2; exit 1; }

files=$(mktemp -d)
attached='' caller='' listener=''
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'kill $caller $listener 2>/dev/null || :
      [ -z "$attached" ] || $tapbridge detach $attached
      rm -r "$files"' EXIT

if [ $# -gt 0 ]; then
    attached=$*
    # All or none.
    $tapbridge attach "$@" || { attached=''; exit 1; }
fi
