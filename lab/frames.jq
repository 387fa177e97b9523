# What `tapbridge stats -j` has counted between $before and $after: frames past the bridge by path, and frames that were
# left to it by reason.
def counts: [
    .[0] | .bridges[]
    | (.paths[] | { key: "\(.from) to \(.to) by \(.via)", value: .frames }),
      (.ports[] | .ifname as $port | .left_by_reason | to_entries[] | { key: "left to the bridge at \($port), \(.key)", value })
] | from_entries;

($before | counts) as $earlier
| $after | counts | to_entries[]
| .value -= ($earlier[.key] // 0)
| select(.value > 0)
| "\(.key): \(.value) frames"
