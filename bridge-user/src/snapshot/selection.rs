//! Of which bridge, or of which ports, something is read.

use crate::{
    error::{Error, Result},
    kernel::netlink::Link,
};

/// What is asked for: everything, unless a bridge or ports are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this bridge.
    pub bridge: Option<String>,
    /// Only these ports, each by any of its names, or, if its device is gone, by the one that it had when it was attached.
    pub ports: Vec<String>,
}

impl From<Option<&str>> for Selection {
    /// One bridge, or everything.
    fn from(bridge: Option<&str>) -> Self {
        Self {
            bridge: bridge.map(str::to_owned),
            ports: Vec::new(),
        }
    }
}

impl From<&Self> for Selection {
    fn from(selection: &Self) -> Self {
        selection.clone()
    }
}

/// A bridge with its ports, or the ports that have none.
pub(super) trait Group {
    /// The bridge's name.
    fn bridge(&self) -> Option<&str>;
    /// Names of the ports.
    fn ports(&self) -> impl Iterator<Item = &str>;
    /// Drops what is of other ports than these.
    fn keep_ports(&mut self, names: &[&str]);
}

impl Selection {
    /// Drops what is not asked for. What is asked for must be there.
    pub(super) fn apply<G: Group>(&self, groups: &mut Vec<G>, links: &[Link]) -> Result<()> {
        if let Some(name) = &self.bridge {
            groups.retain(|group| group.bridge() == Some(name));
            if groups.is_empty() {
                return Err(Error::NoBridge { name: name.clone() });
            }
        }
        if self.ports.is_empty() {
            return Ok(());
        }
        let mut names = Vec::new();
        for name in &self.ports {
            let link = links.iter().find(|link| link.is_called(name));
            let current = link.map_or(&**name, |link| &*link.name);
            if !groups
                .iter()
                .any(|group| group.ports().any(|port| port == current))
            {
                return Err(Error::NotAttached { name: name.clone() });
            }
            names.push(current);
        }
        for group in &mut *groups {
            group.keep_ports(&names);
        }
        groups.retain(|group| group.ports().next().is_some());
        Ok(())
    }
}
