#!/bin/busybox sh
# The first and only program of a guest. It sets the network card up as the kernel's command line says, prints the
# ready mark, then takes requests from a virtio port, one a line: a number and a shell command. Every line of an answer
# starts with @tb; guest/qemu/channel.rs reads them.

/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

# Ends the guest: the kernel panics without its first program, and QEMU exits.
fail() {
    echo "@tb failed: $*"
    exit 1
}

for word in $(cat /proc/cmdline); do
    case $word in
    tb.ip4=*) ip4=${word#*=} ;;
    tb.ip6=*) ip6=${word#*=} ;;
    tb.mtu=*) mtu=${word#*=} ;;
    esac
done

for module in $(cat /modules/order); do
    insmod "/modules/$module" || fail "insmod $module"
done

ip link set dev lo up
# A guest that only tries whether QEMU starts has no card.
if [ -n "$ip4" ]; then
    # Without the wait for duplicates the address can be used at once.
    echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
    ip link set dev eth0 mtu "$mtu" up || fail "no network card"
    ip address add "$ip4" dev eth0 || fail "address $ip4"
    ip address add "$ip6" dev eth0 || fail "address $ip6"
    # About one boot in a hundred carried no traffic when it did not wait for this.
    until [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do usleep 10000; done
fi

# tell: passes on its input as one piece, so that the end of a program never comes amid a line.
tell() {
    (
        flock 9
        cat
    ) 9>/jobs/lock
}

# launch JOB PROGRAM ARGUMENT...: starts a program; its end is told whenever it comes. Its output goes to files, since
# the port's bytes cost the VMM time and system calls, which may be what is measured.
launch() {
    job=/jobs/$1
    mkdir "$job"
    (
        id=$1
        shift
        "$@" >"$job/stdout" 2>"$job/stderr" &
        echo $! >"$job/pid"
        wait $!
        echo "@tb ended $id $?" | tell
    ) </dev/null &
    until [ -s "$job/pid" ]; do usleep 1000; done
}

# output JOB stdout|stderr: what a program has printed so far, and a line end more.
output() {
    { cat "/jobs/$1/$2"; echo; } | sed "s/^/@tb data $number /" | tell
}

# follow COMMAND: runs a shell's command, and passes on what it prints as it comes.
follow() {
    set -o pipefail
    sh -c "$1" 2>&1 </dev/null | while IFS= read -r line; do echo "@tb data $number $line"; done
}

# stop JOB: asks a program to end.
stop() {
    kill "$(cat "/jobs/$1/pid")"
}

# Several kinds of packets, each answered by the peer's kernel: an echo, a refused TCP connection and a UDP datagram
# to a closed port. They have three different checksums, and a switch may spoil one of them.
reaches() {
    ping -c 1 -W 1 "$1" >/dev/null &&
        nc -w 1 "$1" 1 </dev/null 2>&1 | grep -q refused &&
        timeout 1 nslookup probe "$2:1" 2>&1 | grep -q refused
}

# Finds the port of requests by the name that the VMM has given it: its number is another one with every VMM.
find_port() {
    for name in /sys/class/virtio-ports/*/name; do
        [ "$(cat "$name" 2>/dev/null)" = requests ] || continue
        port=${name%/name}
        port=/dev/${port##*/}
        [ -c "$port" ] && return
    done
    return 1
}

# The port appears once the VMM has named it; only one file at a time may have it open.
until find_port; do usleep 1000; done
exec 0<>"$port" 1>&0
echo "@tb ready" | tell
while read -r number request; do
    # In a shell of its own: a mistake in a request ends that one only.
    (eval "$request")
    echo "@tb done $number $?" | tell
done
