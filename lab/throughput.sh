#!/bin/sh
# Measures TCP throughput between two guests that are there already, and says where their frames went.
#
#   lab/throughput.sh [-t SECONDS] [-P STREAMS] CLIENT SERVER ADDRESS [TAP...]
#
# CLIENT and SERVER are commands that run a program in a guest, such as "ssh root@guest1"; ADDRESS is the server's.
# The TAPs, if any, are attached first and detached at the end: ports of a Linux bridge. The guests need iperf3, the host jq.
# Run as root. The variable TAPBRIDGE names another command than the tapbridge on PATH.
# shellcheck disable=SC2086 # The guests' commands are several words.
set -eu

seconds=10 streams=4
while getopts t:P: option; do
    case $option in
    t) seconds=$OPTARG ;;
    P) streams=$OPTARG ;;
    *) exit 2 ;;
    esac
done
folder=$(dirname "$(readlink -f "$0")")
# shellcheck source=SCRIPTDIR/common.sh
. "$folder/common.sh"

$server iperf3 -s -1 >"$files/server" 2>&1 &
listener=$!
$tapbridge stats -j >"$files/before"
tries=1
while :; do
    timeout $((seconds + 30)) $client iperf3 -c "$address" -t "$seconds" -P "$streams" -C cubic --connect-timeout 5000 \
        -J >"$files/iperf3" &
    caller=$!
    wait "$caller" || :
    # Its exit status is 0 even if it could not connect.
    error=$(jq -rs 'if .[0].end.sum_received then .[0].error // empty else .[0].error // "no result" end' "$files/iperf3")
    [ -n "$error" ] || break
    case $error in
    # The server takes a moment to listen.
    *refused*) [ $((tries += 1)) -le 10 ] && kill -0 "$listener" 2>/dev/null && sleep 0.5 && continue ;;
    esac
    echo "iperf3: $error" >&2
    cat "$files/server" >&2
    exit 1
done
$tapbridge stats -j >"$files/after"

jq -r 'def gbit: . / 1e7 | round / 100;
    (.end.streams[] | "stream \(.sender.socket): \(.receiver.bits_per_second | gbit) Gbit/s, \(.sender.retransmits) retransmits"),
    "sum: \(.end.sum_received.bits_per_second | gbit) Gbit/s, \(.end.sum_sent.retransmits) retransmits"' "$files/iperf3"
jq -rn --slurpfile before "$files/before" --slurpfile after "$files/after" -f "$folder/frames.jq"
