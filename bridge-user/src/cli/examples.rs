//! What the help of commands, and with it their man pages, end with.

/// Of `tapbridge` itself.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  it failed: standard error says why, and what to do
  2  wrong usage: nothing was done";

pub const ATTACH: &str = "\
Examples:
  tapbridge attach --master br0            all ports that br0 has now
  tapbridge attach vnet0 vnet1 --hook tcx  two ports, which send in bulk
  tapbridge attach tap0 tap1               taps without a bridge: one is made";

pub const RUN: &str = "\
Examples:
  tapbridge run                          as /etc/tapbridge/tapbridge.toml says
  tapbridge run --config ./bridges.toml  as another file says
  tapbridge run -j                       each change is an object on a line";

pub const CHECK: &str = "\
Examples:
  tapbridge check                 what tapbridge.toml would change
  tapbridge check ./bridges.toml  whether a file can be used; anybody may ask";

pub const STATUS: &str = "\
Examples:
  tapbridge status
  tapbridge status -j | jq -r '.failing[].message'";

pub const CONFIG_DUMP: &str = "\
Examples:
  tapbridge config dump >new.toml && mv new.toml /etc/tapbridge/tapbridge.toml";

pub const DETACH: &str = "\
Examples:
  tapbridge detach vnet0
  tapbridge detach --master br0
  tapbridge detach --all         whatever is attached in this network namespace";

pub const ESTIMATE: &str = "\
Examples:
  tapbridge estimate --master br0          all ports of br0, for 30 seconds
  tapbridge estimate vnet0 vnet1 --time 5  two ports
  tapbridge estimate -j | jq '.bridges[] | {bridge, vmms, confidence}'

What VMMs take is the time of the processes that hold the taps, in the kernel,
as it is measured; what attaching saves of it, or has saved, is reckoned from
what frames cost here. The path is that from the call of a VMM that writes a
frame to that of another which reads it, if that one is awake. In parentheses
is how well it is known.";

pub const SHOW: &str = "\
Examples:
  tapbridge show          what keeps frames from going past bridges
  tapbridge show vnet0    one port
  tapbridge -n blue show  in the network namespace that 'ip netns' calls blue
  tapbridge -br show      lines for scripts

With --brief a line is PORT BRIDGE STATE KIND HOOKS HOOK MTU NETFILTER REASONS.
HOOK is who chooses the hooks: auto, xdp or tcx; NETFILTER is bypass after
'attach --bypass-netfilter'; REASONS are what is in the way of the port or of
its bridge, with commas. '-' stands for nothing.";

pub const FDB_SHOW: &str = "\
Examples:
  tapbridge fdb show --bridge br0
  tapbridge fdb show -j | jq -r '.[] | select(.fast) | .mac'";

pub const STATS: &str = "\
Examples:
  tapbridge stats --watch 0.5 --sort rate  twice a second, busiest ports first
  tapbridge stats vnet0 vnet1              two ports, and the paths of them
  tapbridge stats -j >then; tapbridge stats --since then
  tapbridge stats --reset                  until now; the next time from now on
  tapbridge -br stats                      lines for scripts

With --brief a line is PORT BRIDGE RX_FRAMES RX_BYTES PAST_IT LEFT_TO_IT
TX_PAST_IT TX_BY_IT TX_DROPPED.

--reset changes no counter: what was counted until then is pinned beside them
as a baseline, for all who read them in this network namespace, and goes with
the last port. A port that was attached later counts since then, and is named.";

pub const METRICS: &str = "\
Examples:
  cd /var/lib/prometheus/node-exporter
  tapbridge metrics >tapbridge.tmp && mv tapbridge.tmp tapbridge.prom
  tapbridge run --metrics 9123   Prometheus asks http://127.0.0.1:9123/metrics";

pub const MONITOR: &str = "\
Examples:
  tapbridge monitor
  tapbridge monitor -j | jq -r 'select(.event == \"stopped\") | .text'";

pub const UPGRADE: &str = "\
Examples:
  tapbridge upgrade
  tapbridge upgrade --log-level trace  programs that tell of each frame";

pub const SYSCALLS: &str = "\
Examples:
  tapbridge syscalls --comm qemu-system-x86_64 --time 10
  tapbridge syscalls --pid 4711 -j";
