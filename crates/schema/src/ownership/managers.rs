//! `metadata.managedFields` as a list of managers with their sets.
//!
//! The invariant: no two managers have the same identity, and what is written is sorted as upstream sorts it.

use serde_json::{Map, Value};

use super::Writer;
use super::field_set::FieldSet;

/// How many managers of plain writes are kept before the oldest are merged.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Manager<'a> {
    pub(super) name: &'a str,
    pub(super) applied: bool,
    pub(super) api_version: &'a str,
    pub(super) subresource: &'a str,
    pub(super) time: Option<&'a str>,
    pub(super) fields: FieldSet<'a>,
}

impl<'a> Manager<'a> {
    /// The entry of who writes now, without fields.
    pub(super) fn of_writer(writer: &Writer<'a>, applied: bool) -> Self {
        Manager {
            name: if writer.manager.is_empty() { "unknown" } else { writer.manager },
            applied,
            api_version: writer.api_version,
            subresource: writer.subresource,
            time: None,
            fields: FieldSet::default(),
        }
    }

    /// Whether both are the same manager. An applier stays the same when it applies another version.
    pub(super) fn is(&self, other: &Manager<'_>) -> bool {
        self.name == other.name
            && self.applied == other.applied
            && self.subresource == other.subresource
            && (self.applied || self.api_version == other.api_version)
    }

    /// As texts about conflicts show it.
    pub(super) fn describe(&self) -> String {
        let mut text = Value::from(self.name).to_string();
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", Value::from(self.subresource)));
        }
        if !self.applied {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn operation(&self) -> &'static str {
        if self.applied { "Apply" } else { "Update" }
    }

    fn encode(&self) -> Value {
        let mut entry = Map::new();
        let mut set = |key: &str, value: &str| {
            if !value.is_empty() {
                entry.insert(key.to_owned(), Value::from(value));
            }
        };
        set("apiVersion", self.api_version);
        set("fieldsType", "FieldsV1");
        set("manager", self.name);
        set("operation", self.operation());
        set("subresource", self.subresource);
        set("time", self.time.unwrap_or_default());
        entry.insert("fieldsV1".to_owned(), self.fields.encode());
        Value::Object(entry)
    }
}

/// Reads `managedFields`; the text says what is wrong with it.
pub(super) fn decode(entries: Option<&Value>) -> Result<Vec<Manager<'_>>, String> {
    let mut managers: Vec<Manager<'_>> = Vec::new();
    for (index, entry) in entries.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let manager = decode_entry(index, entry)?;
        match managers.iter_mut().find(|other| other.is(&manager)) {
            Some(other) => *other = manager,
            None => managers.push(manager),
        }
    }
    Ok(managers)
}

fn decode_entry(index: usize, entry: &Value) -> Result<Manager<'_>, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let applied = match text("operation") {
        "Apply" => true,
        "Update" => false,
        _ => return Err("operation must be `Apply` or `Update`".to_owned()),
    };
    if text("apiVersion").is_empty() {
        return Err("apiVersion must not be empty".to_owned());
    }
    match text("fieldsType") {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
        other => return Err(format!("invalid fieldsType \"{other}\" in managed fields entry {index}")),
    }
    let fields = match entry.get("fieldsV1") {
        Some(fields) => FieldSet::decode(fields).map_err(|error| format!("error decoding set: {error}"))?,
        None => FieldSet::default(),
    };
    Ok(Manager {
        name: text("manager"),
        applied,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time: entry.get("time").and_then(Value::as_str),
        fields,
    })
}

/// Writes `managedFields`; `None` when nobody owns anything.
pub(super) fn encode(mut managers: Vec<Manager<'_>>) -> Option<Value> {
    if managers.is_empty() {
        return None;
    }
    managers.sort_by(|a, b| {
        let key = |m: &Manager<'_>| (m.operation(), m.time.unwrap_or_default().to_owned());
        let rest = |m: &Manager<'_>| (m.name.to_owned(), m.api_version.to_owned(), m.subresource.to_owned());
        key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
    });
    Some(Value::Array(managers.iter().map(Manager::encode).collect()))
}

/// Merges the oldest plain writers, so that their number is bounded.
pub(super) fn cap(managers: &mut Vec<Manager<'_>>) {
    let mut updaters: Vec<usize> = (0..managers.len()).filter(|index| !managers[*index].applied).collect();
    let mut excess = updaters.len().saturating_sub(MAX_UPDATERS);
    if excess == 0 {
        return;
    }
    updaters
        .sort_by_key(|index| (managers[*index].time.unwrap_or_default().to_owned(), managers[*index].name.to_owned()));
    let mut gone = Vec::new();
    // The first old entry of a version becomes the bucket once there is a second one.
    let mut first_by_version: Vec<(&str, usize)> = Vec::new();
    for index in updaters {
        if excess == 0 {
            break;
        }
        let version = managers[index].api_version;
        match first_by_version.iter().find(|(seen, _)| *seen == version) {
            None => first_by_version.push((version, index)),
            Some((_, bucket)) => {
                let fields = std::mem::take(&mut managers[index].fields);
                let time = managers[index].time;
                let bucket = &mut managers[*bucket];
                bucket.name = ANCIENT;
                bucket.subresource = "";
                bucket.time = time;
                bucket.fields = std::mem::take(&mut bucket.fields).union(fields);
                gone.push(index);
                excess -= 1;
            }
        }
    }
    let mut index = 0;
    managers.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}
