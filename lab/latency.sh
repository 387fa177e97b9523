#!/bin/sh
# Measures the latency of UDP messages between two guests that are there already, and says where their frames went.
#
#   lab/latency.sh [-t SECONDS] [-m BYTES] CLIENT SERVER ADDRESS [TAP...]
#
# CLIENT and SERVER are commands that run a program in a guest, such as "ssh root@guest1"; ADDRESS is the server's.
# The TAPs, if any, are attached first and detached at the end: ports of a Linux bridge. The guests need sockperf, the host jq.
# Run as root. The variable TAPBRIDGE names another command than the tapbridge on PATH.
# shellcheck disable=SC2086 # The guests' commands are several words.
set -eu

seconds=10 bytes=64
while getopts t:m: option; do
    case $option in
    t) seconds=$OPTARG ;;
    m) bytes=$OPTARG ;;
    *) exit 2 ;;
    esac
done
folder=$(dirname "$(readlink -f "$0")")
# shellcheck source=SCRIPTDIR/common.sh
. "$folder/common.sh"

# It does not end by itself, nor with an ssh that has started it.
$server timeout $((seconds + 10)) sockperf server -i "$address" >"$files/server" 2>&1 &
listener=$!
tries=1
until grep -q 'to block on socket' "$files/server"; do
    if [ $((tries += 1)) -gt 40 ] || ! kill -0 "$listener" 2>/dev/null; then
        cat "$files/server" >&2
        exit 1
    fi
    sleep 0.5
done
$tapbridge stats -j >"$files/before"
timeout $((seconds + 30)) $client sockperf ping-pong -i "$address" -m "$bytes" -t "$seconds" >"$files/sockperf" &
caller=$!
if ! wait "$caller"; then
    cat "$files/sockperf" >&2
    exit 1
fi
$tapbridge stats -j >"$files/after"

grep -E 'avg-latency|dropped|percentile|observation' "$files/sockperf"
jq -rn --slurpfile before "$files/before" --slurpfile after "$files/after" -f "$folder/frames.jq"
