#!/bin/sh
# Counts the system calls of two guests' VMMs while a command runs, such as a measurement between the guests.
#
#   lab/syscalls.sh CLIENT_PID SERVER_PID COMMAND...
#
# For example: lab/syscalls.sh 4711 4712 lab/throughput.sh "ssh root@guest1" "ssh root@guest2" 10.0.0.2
# Run as root. The variable TAPBRIDGE names another command than the tapbridge on PATH.
set -eu

if [ $# -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
client=client:$1 server=server:$2
shift 2
tapbridge=${TAPBRIDGE:-tapbridge}

files=$(mktemp -d)
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'kill ${command-} ${counters-} 2>/dev/null || :
      rm -r "$files"' EXIT

for process in "$client" "$server"; do
    role=${process%:*}
    $tapbridge syscalls --pid "${process#*:}" --bpftrace >"$files/$role" 2>"$files/$role.log" &
    counters="${counters-} $!"
    tries=1
    until grep -q '^counting' "$files/$role.log"; do
        if [ $((tries += 1)) -gt 100 ] || ! kill -0 $! 2>/dev/null; then
            cat "$files/$role.log" >&2
            exit 1
        fi
        sleep 0.1
    done
done

status=0
"$@" &
command=$!
wait "$command" || status=$?
for counter in $counters; do
    kill "$counter" && wait "$counter"
done
counters=
for role in server client; do
    echo "$role's VMM:"
    cat "$files/$role"
done
exit $status
