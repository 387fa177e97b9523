//! In which order ports and paths are printed.

use std::cmp::Reverse;

use clap::ValueEnum;
use tapbridge::snapshot::statistics::{PathStatistics, PortStatistics, Statistics};

use super::rates::Rates;

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Key {
    /// Names, in the order of the alphabet
    Name,
    /// Most frames received from the port, or on the path
    Frames,
    /// Most bytes received from the port, or on the path
    Bytes,
    /// Most frames sent to the port
    Sent,
    /// Most frames left to the bridge
    Left,
    /// Most frames dropped at the port
    Dropped,
    /// Most frames a second received from the port, or on the path; with --watch or --since
    Rate,
}

/// Sorts the ports of each bridge, and the paths where the key is about them. What is alike stays in the order of names.
pub fn sort(statistics: &mut Statistics, key: Key, rates: Option<&Rates>) {
    // Rates are compared in frames per 1,000 s.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = |rate: f64| (rate * 1e3) as u64;
    let port = |port: &PortStatistics| match key {
        Key::Name => 0,
        Key::Frames => port.rx.frames,
        Key::Bytes => port.rx.bytes,
        Key::Sent => port.tx.frames + port.tx_by_bridge,
        Key::Left => port.left.frames,
        Key::Dropped => port.tx_dropped,
        Key::Rate => rates.map_or(port.rx.frames, |rates| whole(rates.of_port(port).rx_frames)),
    };
    let path = |path: &PathStatistics| match key {
        Key::Frames => path.frames,
        Key::Bytes => path.bytes,
        Key::Rate => rates.map_or(path.frames, |rates| whole(rates.of_path(path)[0])),
        Key::Name | Key::Sent | Key::Left | Key::Dropped => 0,
    };
    for bridge in &mut statistics.bridges {
        bridge.ports.sort_by_cached_key(|of| Reverse(port(of)));
        bridge.paths.sort_by_cached_key(|of| Reverse(path(of)));
    }
}
