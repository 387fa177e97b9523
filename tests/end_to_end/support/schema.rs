//! The schemas of the JSON that commands print, against which all of it is checked that the tests meet.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use jsonschema::Validator;
use serde_json::Value;

/// A schema, by the name of its file.
pub struct Schema {
    text: Value,
    validator: Validator,
}

/// All of them: the tests also run where the sources are not.
const TEXTS: [(&str, &str); 15] = [
    ("attach", include_str!("../../../schemas/attach.json")),
    ("check", include_str!("../../../schemas/check.json")),
    ("config-dump", include_str!("../../../schemas/config-dump.json")),
    ("detach", include_str!("../../../schemas/detach.json")),
    ("error", include_str!("../../../schemas/error.json")),
    ("estimate", include_str!("../../../schemas/estimate.json")),
    ("fdb-show", include_str!("../../../schemas/fdb-show.json")),
    ("metrics", include_str!("../../../schemas/metrics.json")),
    ("monitor", include_str!("../../../schemas/monitor.json")),
    ("run", include_str!("../../../schemas/run.json")),
    ("show", include_str!("../../../schemas/show.json")),
    ("stats", include_str!("../../../schemas/stats.json")),
    ("status", include_str!("../../../schemas/status.json")),
    ("syscalls", include_str!("../../../schemas/syscalls.json")),
    ("upgrade", include_str!("../../../schemas/upgrade.json")),
];

/// Names of the files that there are, sorted.
pub fn files() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let files = fs::read_dir(folder).expect("list the schemas");
    let mut names: Vec<String> = files
        .map(|file| file.expect("a schema").file_name().into_string().expect("a name"))
        .map(|name| name.strip_suffix(".json").expect("only schemas").to_owned())
        .collect();
    names.sort();
    names
}

/// Names of all, sorted.
pub fn names() -> Vec<String> {
    TEXTS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// The schema of this name.
#[track_caller]
pub fn of(name: &str) -> Arc<Schema> {
    static READ: LazyLock<Mutex<HashMap<String, Arc<Schema>>>> = LazyLock::new(Mutex::default);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = read.get(name) {
        return Arc::clone(schema);
    }
    let found = TEXTS.iter().find(|(other, _)| *other == name);
    let (_, text) = found.unwrap_or_else(|| panic!("{name}: there is no such schema"));
    let text: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let valid = jsonschema::draft202012::meta::validate(&text);
    valid.unwrap_or_else(|error| panic!("{name}: is no schema: {error}"));
    let validator = jsonschema::draft202012::new(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let schema = Arc::new(Schema { text, validator });
    read.insert(name.to_owned(), Arc::clone(&schema));
    schema
}

/// The schema of what the command of these words prints, by the first of them that is no option.
pub fn of_words(words: &str) -> String {
    let mut words = words.split_whitespace().filter(|word| !word.starts_with('-'));
    match words.next() {
        Some("fdb") => "fdb-show".to_owned(),
        Some("config") => "config-dump".to_owned(),
        word => word.expect("a command").to_owned(),
    }
}

/// Checks a document.
#[track_caller]
pub fn check(name: &str, document: &Value) {
    let wrong = complaints(name, document);
    assert!(
        wrong.is_empty(),
        "not as schemas/{name}.json has it: {wrong:#?} in {document:#}"
    );
}

/// What of a document is not as the schema of this name has it.
#[track_caller]
pub fn complaints(name: &str, document: &Value) -> Vec<String> {
    let schema = of(name);
    let errors = schema.validator.iter_errors(document);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

impl Schema {
    /// Paths of all properties that it has, such as `bridges[].ports[].ifname`; each object must allow no others, and describe
    /// each.
    #[track_caller]
    pub fn properties(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.walk(&self.text, None, "", &mut found);
        found
    }

    /// Those of them that a document has.
    pub fn properties_in(&self, document: &Value) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.walk(&self.text, Some(document), "", &mut found);
        found
    }

    /// Goes through all that a part of the schema allows, or through what a document makes use of.
    fn walk(&self, node: &Value, document: Option<&Value>, path: &str, found: &mut BTreeSet<String>) {
        if let Some(place) = node["$ref"].as_str() {
            let place = place.strip_prefix('#').expect("within the schema");
            let node = self.text.pointer(place).unwrap_or_else(|| panic!("no {place}"));
            return self.walk(node, document, path, found);
        }
        for key in ["oneOf", "anyOf"] {
            for node in node[key].as_array().into_iter().flatten() {
                self.walk(node, document, path, found);
            }
        }
        if let Some(properties) = node["properties"].as_object() {
            assert_eq!(node["additionalProperties"], false, "'{path}' allows others");
            for (key, node) in properties {
                assert!(node["description"].is_string(), "{path}.{key} is not described");
                let value = document.map(|document| &document[key]);
                if value.is_none_or(|value| !value.is_null()) {
                    let path = format!("{path}.{key}");
                    self.walk(node, value, &path, found);
                    found.insert(path);
                }
            }
        }
        if node["items"].is_object() {
            let path = format!("{path}[]");
            match document {
                None => self.walk(&node["items"], None, &path, found),
                Some(document) => {
                    for item in document.as_array().into_iter().flatten() {
                        self.walk(&node["items"], Some(item), &path, found);
                    }
                }
            }
        }
    }
}
