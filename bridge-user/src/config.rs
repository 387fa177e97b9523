//! The configuration of `run`: which ports of which bridges are to be attached, whenever they come.
//!
//! ```toml
//! [[bridge]]
//! name = "virbr0"          # all its ports
//!
//! [[bridge]]
//! name = "vmbr*"           # as in a shell: * ? [a-z]
//! ports = ["tap*", "veth*"]
//! hook = "tcx"             # "auto", "xdp" or "tcx"
//!
//! [[bridge]]
//! name = "lab"
//! make = true              # taps of these names become its ports if they have no bridge
//! ports = ["lab-*"]
//! ```

use std::{fs, io, ops::Range, path::Path};

use bridge_common::port::HookMode;
use glob::Pattern;
use serde::Deserialize;
use toml::Spanned;

use crate::{
    error::{Context as _, Error, Result},
    kernel::netlink::{Kind, Link, bridge_of},
    own_bridge::check_name,
};

/// Where it is unless the user names another.
pub const DEFAULT_CONFIG: &str = "/etc/tapbridge/tapbridge.toml";

/// How alike two words are of which one may be meant by the other: 1 for the same, 0 for nothing in common.
const ALIKE: f64 = 0.6;

/// What is to be attached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// In the order of the file: the first that is about a port counts.
    pub bridges: Vec<Rule>,
}

/// What is to be attached of a bridge, or of several.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    name: Pattern,
    /// None: all of them.
    ports: Option<Vec<Pattern>>,
    /// Which hooks its taps get; none leaves that to who attaches them.
    pub hook: Option<HookMode>,
    /// Whether no rule of netfilter is meant for frames between its ports; none leaves that to who attaches them.
    pub bypass_netfilter: Option<bool>,
    /// Whether taps that have no bridge become its ports.
    pub make: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    bridge: Vec<Bridge>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bridge {
    name: Spanned<String>,
    ports: Option<Spanned<Vec<Spanned<String>>>>,
    hook: Option<Hook>,
    bypass_netfilter: Option<bool>,
    make: Option<Spanned<bool>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Hook {
    Auto,
    Xdp,
    Tcx,
}

impl From<Hook> for HookMode {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::Auto => Self::Auto,
            Hook::Xdp => Self::Xdp,
            Hook::Tcx => Self::Tcx,
        }
    }
}

impl Config {
    /// Reads a file; none if there is none of this name.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Self::parse(&text.at(path.display(), "read")?, path).map(Some),
        }
    }

    /// What the text of this file says.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let fault = |span: Range<usize>, message: String| Error::Config {
            place: place(text, path, span.start),
            message,
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let word = text.get(span.clone()).unwrap_or_default();
            fault(span, explained(error.message(), word))
        })?;
        let mut bridges: Vec<Rule> = Vec::new();
        for bridge in file.bridge {
            let rule = bridge.rule().map_err(|(span, message)| fault(span, message))?;
            if bridges
                .iter()
                .any(|other| other.name == rule.name && other.ports == rule.ports)
            {
                let message = format!("the bridge '{}' is there already, with the same ports", rule.name);
                return Err(fault(bridge.name.span(), message));
            }
            bridges.push(rule);
        }
        Ok(Self { bridges })
    }

    /// The rule that a device is to be attached by, if it is: as a port of the bridge that it is a port of, or of the one
    /// that the rule makes.
    pub fn rule_for(&self, device: &Link, links: &[Link]) -> Option<&Rule> {
        if !device.ethernet || device.bridge {
            return None;
        }
        let mut rules = self.bridges.iter();
        match (bridge_of(links, device), device.master) {
            (Some(bridge), _) => rules.find(|rule| matches(&rule.name, bridge) && rule.is_about(device)),
            (None, None) if device.kind == Kind::Tap => rules.find(|rule| rule.make && rule.is_about(device)),
            _ => None,
        }
    }

    /// Whether a device is to be attached by this one of the rules.
    pub(crate) fn is_for(&self, rule: &Rule, device: &Link, links: &[Link]) -> bool {
        self.rule_for(device, links)
            .is_some_and(|found| std::ptr::eq(found, rule))
    }
}

impl Bridge {
    /// On failure, where it is and what is wrong.
    fn rule(&self) -> Result<Rule, (Range<usize>, String)> {
        let make = self.make.as_ref().is_some_and(|make| *make.get_ref());
        if make {
            let name = self.name.get_ref();
            if Pattern::escape(name) != *name {
                let message =
                    format!("'{name}' can't be a bridge's name: a pattern names none that could be made");
                return Err((self.name.span(), message));
            }
            check_name(name).map_err(|error| (self.name.span(), error.to_string()))?;
        }
        let ports = match &self.ports {
            None if make => {
                let message = "a bridge that is made takes the taps that 'ports' names: it is missing";
                return Err((self.name.span(), message.into()));
            }
            None => None,
            Some(ports) if ports.get_ref().is_empty() => {
                return Err((
                    ports.span(),
                    "no port is named; leave it out for all of the bridge's".into(),
                ));
            }
            Some(ports) => Some(ports.get_ref().iter().map(pattern).collect::<Result<_, _>>()?),
        };
        Ok(Rule {
            name: pattern(&self.name)?,
            ports,
            hook: self.hook.map(HookMode::from),
            bypass_netfilter: self.bypass_netfilter,
            make,
        })
    }
}

impl Rule {
    /// The bridge or bridges, as in the file.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    fn is_about(&self, device: &Link) -> bool {
        let ports = self.ports.as_ref();
        ports.is_none_or(|ports| ports.iter().any(|ports| matches(ports, device)))
    }
}

fn matches(pattern: &Pattern, device: &Link) -> bool {
    pattern.matches(&device.name) || device.alternative_names.iter().any(|name| pattern.matches(name))
}

fn pattern(text: &Spanned<String>) -> Result<Pattern, (Range<usize>, String)> {
    if text.get_ref().is_empty() {
        return Err((text.span(), "a name is missing; '*' is all names".into()));
    }
    Pattern::new(text.get_ref()).map_err(|error| {
        let message = format!("'{}' is no pattern: {}", text.get_ref(), error.msg);
        (text.span(), message)
    })
}

/// File, line and column, of which the first ones are 1.
fn place(text: &str, path: &Path, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}", path.display())
}

/// With the word that may have been meant.
fn explained(message: &str, word: &str) -> String {
    // "unknown field `hok`, expected one of `name`, `hook`", in words of serde's.
    let expected = message
        .strip_prefix("unknown ")
        .and_then(|told| told.split_once("expected "))
        .map_or("", |(_, expected)| expected);
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let word = word.trim_matches(['"', '\'']);
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(word, known);
    let nearest = known
        .iter()
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let message = message.trim_end();
    match nearest {
        Some(nearest) if likeness(nearest) >= ALIKE => format!("{message}; did you mean '{nearest}'?"),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};

    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("f.toml"))
    }

    fn device(ifindex: u32, name: &str, kind: Option<InfoKind>, master: Option<u32>) -> Link {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes.push(LinkAttribute::IfName(name.into()));
        let master = master.map(LinkAttribute::Controller);
        let kind = kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        message.attributes.extend(master.into_iter().chain(kind));
        message.into()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_may_be_meant() {
        for (text, told) in [
            (
                "[[bridge]]\nname = \"br0\"\nhok = 1",
                "f.toml:3:1: unknown field `hok`, expected one of `name`, `ports`, `hook`, `bypass-netfilter`, `make`; did you mean 'hook'?",
            ),
            (
                "[[brigde]]\nname = \"br0\"",
                "f.toml:1:3: unknown field `brigde`, expected `bridge`; did you mean 'bridge'?",
            ),
            (
                "[[bridge]]\nname = \"br0\"\nhook = \"xpd\"",
                "f.toml:3:8: unknown variant `xpd`, expected one of `auto`, `xdp`, `tcx`; did you mean 'xdp'?",
            ),
            (
                "name = \"br0\"",
                "f.toml:1:1: unknown field `name`, expected `bridge`",
            ),
            (
                "[[bridge]]\nname = 7",
                "f.toml:2:8: invalid type: integer `7`, expected a string",
            ),
            (
                "[[bridge]]\nports = [\"vm*\"]",
                "f.toml:1:1: missing field `name`",
            ),
            (
                "[[bridge]]\nname = \"br0\"\nports = []",
                "f.toml:3:9: no port is named; leave it out for all of the bridge's",
            ),
            (
                "[[bridge]]\nname = \"br0\"\nports = [\"a\", \"[x\"]",
                "f.toml:3:15: '[x' is no pattern: invalid range pattern",
            ),
            (
                "[[bridge]]\nname = \"\"",
                "f.toml:2:8: a name is missing; '*' is all names",
            ),
            (
                "[[bridge]]\nname = \"br*\"\nports = [\"a\"]\nmake = true",
                "f.toml:2:8: 'br*' can't be a bridge's name: a pattern names none that could be made",
            ),
            (
                "[[bridge]]\nname = \"lab\"\nmake = true",
                "f.toml:2:8: a bridge that is made takes the taps that 'ports' names: it is missing",
            ),
            (
                "[[bridge]]\nname = \"é\"\n[[bridge]]\nname = \"é\"",
                "f.toml:4:8: the bridge 'é' is there already, with the same ports",
            ),
            (
                "[[bridge]]\nname = \"br0",
                "f.toml:2:12: invalid basic string, expected `\"`",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), told, "{text}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_asks_for_nothing() {
        assert_eq!(parse("# later\n").unwrap(), Config::default());
    }

    #[test]
    fn the_first_rule_that_is_about_a_port_counts() {
        let config = parse(
            "[[bridge]]\nname = \"br0\"\nports = [\"vm[12]\"]\nhook = \"tcx\"\n\
             [[bridge]]\nname = \"br*\"\nbypass-netfilter = true\n\
             [[bridge]]\nname = \"lab\"\nmake = true\nports = [\"lab-*\"]\n",
        )
        .unwrap();
        let bridge = |index, name| device(index, name, Some(InfoKind::Bridge), None);
        let tap = |name, master| device(9, name, Some(InfoKind::Tun), master);
        let links = [
            bridge(1, "br0"),
            bridge(2, "br1"),
            bridge(3, "other"),
            device(4, "ovs", None, None),
        ];
        let rule_for = |device: &Link| {
            config
                .rule_for(device, &links)
                .map(|rule| (rule.name(), rule.hook, rule.bypass_netfilter))
        };
        let first = Some(("br0", Some(HookMode::Tcx), None));
        let second = Some(("br*", None, Some(true)));
        assert_eq!(rule_for(&tap("vm1", Some(1))), first);
        assert_eq!(rule_for(&tap("vm3", Some(1))), second);
        assert_eq!(rule_for(&device(9, "eth0", None, Some(2))), second);
        assert_eq!(rule_for(&tap("vm1", Some(3))), None);
        // A port of something that is no Linux bridge.
        assert_eq!(rule_for(&tap("lab-1", Some(4))), None);
        assert_eq!(rule_for(&tap("lab-1", None)), Some(("lab", None, None)));
        assert_eq!(rule_for(&tap("vm1", None)), None);
        // Only taps are taken that have no bridge.
        assert_eq!(rule_for(&device(9, "lab-2", None, None)), None);
        assert_eq!(rule_for(&bridge(1, "br0")), None);
    }
}
