//! What is attached, as a configuration of `run`.

use std::{collections::BTreeMap, fmt::Write as _};

use glob::Pattern;
use serde::Serialize;

use super::overview::{BridgeOverview, Overview, PortOverview};

#[derive(Serialize)]
struct File<'all> {
    bridge: Vec<Rule<'all>>,
}

/// As [`Config`](crate::config::Config) reads it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Rule<'all> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'all str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bypass_netfilter: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    make: Option<bool>,
}

/// What a rule says of a port besides its name: only taps choose hooks.
type Settings<'all> = (Option<&'all str>, bool);

fn settings(port: &PortOverview) -> Settings<'_> {
    let hook = port.hook.filter(|_| port.kind == Some("tap"));
    (hook, port.bypass_netfilter)
}

impl Overview {
    /// A configuration that asks for what is attached. Ports that have no bridge now are named in a comment only.
    pub fn configuration(&self) -> String {
        let mut text = String::from("# What was attached when 'tapbridge config dump' wrote this.\n");
        let mut rules = Vec::new();
        for bridge in &self.bridges {
            match &bridge.bridge {
                Some(name) => rules.extend(bridge.rules(name)),
                None => {
                    for port in &bridge.ports {
                        let _ = writeln!(text, "# {} has no bridge now.", port.ifname);
                    }
                }
            }
        }
        if !rules.is_empty() {
            text.push('\n');
            text += &toml::to_string(&File { bridge: rules }).expect("names and words");
        }
        text
    }
}

impl BridgeOverview {
    fn rules(&self, name: &str) -> Vec<Rule<'_>> {
        let mut groups = BTreeMap::<Settings<'_>, Vec<&PortOverview>>::new();
        for port in self.ports.iter().filter(|port| port.attached) {
            groups.entry(settings(port)).or_default().push(port);
        }
        // A device that chooses none goes with those that do.
        for bypass in [false, true] {
            let with_hooks = |(hook, other): &Settings<'_>| hook.is_some() && *other == bypass;
            let other = groups.keys().find(|settings| with_hooks(settings)).copied();
            if let Some(other) = other
                && let Some(ports) = groups.remove(&(None, bypass))
            {
                groups.entry(other).or_default().extend(ports);
            }
        }
        // One rule for all, those that come later included, if nothing tells one from another.
        let is_whole = self.ports.iter().all(|port| port.attached);
        if groups.len() == 1 && is_whole && !self.own {
            return groups
                .into_keys()
                .map(|settings| self.rule(name, None, settings))
                .collect();
        }
        let named =
            |ports: Vec<&PortOverview>| ports.iter().map(|port| Pattern::escape(&port.ifname)).collect();
        groups
            .into_iter()
            .map(|(settings, ports)| self.rule(name, Some(named(ports)), settings))
            .collect()
    }

    fn rule<'all>(
        &self,
        name: &str,
        ports: Option<Vec<String>>,
        (hook, bypass): Settings<'all>,
    ) -> Rule<'all> {
        Rule {
            name: Pattern::escape(name),
            ports,
            hook,
            bypass_netfilter: bypass.then_some(true),
            make: self.own.then_some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn port(ifname: &str, kind: &'static str, hook: Option<&'static str>, bypass: bool) -> PortOverview {
        PortOverview {
            ifname: ifname.into(),
            ifindex: 1,
            attached: hook.is_some(),
            kind: Some(kind),
            hook,
            hooks: Vec::new(),
            hook_changes: 0,
            hook_changed: None,
            bypass_netfilter: bypass,
            state: "up",
            mtu: Some(1500),
            obstacles: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn written(own: bool, ports: Vec<PortOverview>) -> String {
        let bridge = BridgeOverview {
            bridge: Some("br0".into()),
            own,
            obstacles: Vec::new(),
            ports,
        };
        let text = Overview {
            schema: crate::SCHEMA,
            running: false,
            bridges: vec![bridge],
            unreadable: Vec::new(),
        }
        .configuration();
        Config::parse(&text, Path::new("f.toml")).expect("a configuration");
        text.split_once("\n\n").expect("rules").1.to_owned()
    }

    #[test]
    fn ports_that_are_alike_and_all_there_is_need_no_names() {
        let ports = vec![
            port("vnet0", "tap", Some("auto"), true),
            port("eth0", "other", Some("tcx"), true),
        ];
        assert_eq!(
            written(false, ports),
            "[[bridge]]\nname = \"br0\"\nhook = \"auto\"\nbypass-netfilter = true\n"
        );
        assert_eq!(
            written(false, vec![port("eth0", "other", Some("auto"), false)]),
            "[[bridge]]\nname = \"br0\"\n"
        );
    }

    #[test]
    fn others_are_named_one_by_one() {
        let ports = || {
            vec![
                port("tap[0]", "tap", Some("auto"), false),
                port("tap1", "tap", Some("xdp"), false),
                port("tap2", "tap", Some("auto"), false),
                port("eth0", "other", Some("auto"), false),
            ]
        };
        let auto =
            "[[bridge]]\nname = \"br0\"\nports = [\"tap[[]0[]]\", \"tap2\", \"eth0\"]\nhook = \"auto\"\n";
        let xdp = "\n[[bridge]]\nname = \"br0\"\nports = [\"tap1\"]\nhook = \"xdp\"\n";
        assert_eq!(written(false, ports()), format!("{auto}{xdp}"));
        let made = format!("{auto}make = true\n{xdp}make = true\n");
        assert_eq!(written(true, ports()), made);
        let one_is_not = vec![
            port("tap1", "tap", None, false),
            port("tap2", "tap", Some("tcx"), false),
        ];
        assert_eq!(
            written(false, one_is_not),
            "[[bridge]]\nname = \"br0\"\nports = [\"tap2\"]\nhook = \"tcx\"\n"
        );
    }
}
