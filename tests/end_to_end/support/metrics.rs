//! What `tapbridge metrics` and scrapes say.

use std::collections::BTreeMap;

/// Samples that are whole numbers, by their names and labels as they are written.
pub struct Samples(BTreeMap<String, u64>);

impl Samples {
    /// Of either format of text.
    #[track_caller]
    pub fn of(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut samples = BTreeMap::new();
        for line in lines {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let Ok(value) = value.parse() else {
                assert!(value.parse::<f64>().is_ok(), "{line}");
                continue;
            };
            assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {name}");
        }
        Self(samples)
    }

    /// The value of one, without what all begin with.
    #[track_caller]
    pub fn value(&self, name: &str) -> u64 {
        let name = format!("tapbridge_{name}");
        let found = self.0.get(&name);
        *found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }

    /// How many there are of a name.
    pub fn count(&self, name: &str) -> usize {
        let name = format!("tapbridge_{name}");
        let names = self.0.keys().map(|key| key.split('{').next());
        names.filter(|key| *key == Some(&name)).count()
    }

    /// All counters.
    pub fn counters(&self) -> impl Iterator<Item = (&str, u64)> {
        let all = self.0.iter().map(|(name, value)| (&**name, *value));
        all.filter(|(name, _)| {
            name.split('{')
                .next()
                .is_some_and(|name| name.ends_with("_total"))
        })
    }
}

/// The names of all families of a text, as its comments name them.
pub fn families(text: &str) -> Vec<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}
