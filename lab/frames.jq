# What `tapbridge stats -j` has counted between $before and $after: frames by path, and drops by reason.
def counts: [
    .[0].bridges[]
    | (.paths[] | { key: "\(.from) to \(.to) by \(.via)", value: .frames }),
      (.ports[] | .ifname as $port | .dropped | to_entries[] | { key: "dropped at \($port), \(.key)", value })
] | from_entries;

($before | counts) as $earlier
| $after | counts | to_entries[]
| .value -= ($earlier[.key] // 0)
| select(.value > 0)
| "\(.key): \(.value) frames"
