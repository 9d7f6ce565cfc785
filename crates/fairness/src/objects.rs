//! FlowSchemas and PriorityLevelConfigurations as the deciding code wants them.
//!
//! Unknown fields are passed over: the API has validated what is stored. Invariant: a level that is read is sound in itself.

use serde::Deserialize;

use crate::limits::Shares;

/// The level, and the schema, that nothing limits.
pub const EXEMPT: &str = "exempt";

/// The level, and the schema, for what nothing else matches.
pub const CATCH_ALL: &str = "catch-all";

/// More queues than this are taken as this many, so that memory is bounded.
const MOST_QUEUES: usize = 4096;

/// How requests of one schema are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinguisher {
    /// Each user is a flow.
    ByUser,
    /// Each namespace is a flow.
    ByNamespace,
}

/// Which requests belong to a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSchema {
    /// Its name.
    pub name: String,
    /// Its uid, which answers show instead of the name.
    pub uid: String,
    /// The name of the level.
    pub level: String,
    /// The smallest comes first.
    pub precedence: i64,
    /// Absent: all of it is one flow.
    pub distinguisher: Option<Distinguisher>,
    pub(crate) rules: Vec<Rule>,
    /// Status, reason and message of the condition `Dangling`; empty where there is none.
    pub dangling: [String; 3],
}

/// A queuing configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queuing {
    /// How many queues there are; 0: what finds no seat is refused.
    pub queues: usize,
    /// How many of them a flow may use.
    pub hand_size: usize,
    /// How many requests a queue takes.
    pub length_limit: usize,
}

/// What happens to requests of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They run.
    Exempt,
    /// They get seats, or wait as this says.
    Limited(Queuing),
}

/// A level's specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelSpec {
    /// Its part of the server's seats.
    pub shares: Shares,
    /// Whether it is limited, and how.
    pub kind: Kind,
}

impl LevelSpec {
    /// For [`crate::QueueSet`].
    pub fn queuing(&self) -> Option<Queuing> {
        match self.kind {
            Kind::Exempt => None,
            Kind::Limited(queuing) => Some(queuing),
        }
    }
}

/// A priority level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriorityLevel {
    /// Its name.
    pub name: String,
    /// Its uid, which answers show instead of the name.
    pub uid: String,
    /// What it says.
    pub spec: LevelSpec,
}

/// A rule of a schema.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Rule {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) resource_rules: Vec<ResourceRule>,
    pub(crate) non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Subject {
    pub(crate) kind: String,
    pub(crate) user: Option<Name>,
    pub(crate) group: Option<Name>,
    pub(crate) service_account: Option<ServiceAccount>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Name {
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceAccount {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ResourceRule {
    pub(crate) verbs: Vec<String>,
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) cluster_scope: bool,
    pub(crate) namespaces: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PathRule {
    pub(crate) verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub(crate) urls: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    uid: String,
}

#[derive(Deserialize)]
struct SchemaObject {
    metadata: Metadata,
    spec: SchemaSpec,
    #[serde(default)]
    status: SchemaStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaSpec {
    priority_level_configuration: Name,
    #[serde(default)]
    matching_precedence: i64,
    distinguisher_method: Option<Method>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Method {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
struct SchemaStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

#[derive(Deserialize)]
struct LevelObject {
    metadata: Metadata,
    spec: LevelFields,
}

#[derive(Deserialize)]
struct LevelFields {
    #[serde(rename = "type")]
    kind: String,
    exempt: Option<ExemptFields>,
    limited: Option<LimitedFields>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ExemptFields {
    nominal_concurrency_shares: u64,
    lendable_percent: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LimitedFields {
    #[serde(default = "thirty")]
    nominal_concurrency_shares: u64,
    #[serde(default)]
    lendable_percent: u64,
    borrowing_limit_percent: Option<u64>,
    limit_response: Response,
}

fn thirty() -> u64 {
    30
}

#[derive(Deserialize)]
struct Response {
    #[serde(rename = "type")]
    kind: String,
    queuing: Option<QueuingFields>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueuingFields {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

/// A schema out of its JSON; the error says what is wrong.
pub fn read_schema(json: &[u8]) -> Result<FlowSchema, String> {
    let SchemaObject { metadata, spec, status } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let distinguisher = match spec.distinguisher_method.as_ref().map(|method| method.kind.as_str()) {
        None => None,
        Some("ByUser") => Some(Distinguisher::ByUser),
        Some("ByNamespace") => Some(Distinguisher::ByNamespace),
        Some(other) => return Err(format!("the distinguisher method {other} is not known")),
    };
    let dangling = status.conditions.into_iter().find(|condition| condition.kind == "Dangling").unwrap_or_default();
    Ok(FlowSchema {
        name: metadata.name,
        uid: metadata.uid,
        level: spec.priority_level_configuration.name,
        precedence: spec.matching_precedence,
        distinguisher,
        rules: spec.rules,
        dangling: [dangling.status, dangling.reason, dangling.message],
    })
}

/// A level out of its JSON; the error says what is wrong.
pub fn read_level(json: &[u8]) -> Result<PriorityLevel, String> {
    let LevelObject { metadata, spec } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if (spec.kind == "Exempt") != (metadata.name == EXEMPT) {
        return Err("the level named exempt, and no other, is exempt".to_owned());
    }
    let spec = match (spec.kind.as_str(), spec.exempt, spec.limited) {
        ("Exempt", exempt, None) => {
            let ExemptFields { nominal_concurrency_shares, lendable_percent } = exempt.unwrap_or_default();
            let shares = Shares { nominal: nominal_concurrency_shares, lendable_percent, borrowing_percent: None };
            LevelSpec { shares, kind: Kind::Exempt }
        }
        ("Limited", None, Some(limited)) => read_limited(limited)?,
        (kind, ..) => return Err(format!("what it says does not go with its type {kind}")),
    };
    Ok(PriorityLevel { name: metadata.name, uid: metadata.uid, spec })
}

fn read_limited(fields: LimitedFields) -> Result<LevelSpec, String> {
    let queuing = match (fields.limit_response.kind.as_str(), fields.limit_response.queuing) {
        ("Reject", None) => Queuing { queues: 0, hand_size: 0, length_limit: 0 },
        ("Queue", Some(fields)) => {
            let QueuingFields { queues, hand_size, queue_length_limit: length_limit } = fields;
            if queues == 0 || hand_size == 0 || hand_size > queues {
                return Err(format!("hands of {hand_size} cannot be dealt out of {queues} queues"));
            }
            Queuing { queues: queues.min(MOST_QUEUES), hand_size, length_limit }
        }
        (kind, _) => return Err(format!("its queuing does not go with its limit response {kind}")),
    };
    let shares = Shares {
        nominal: fields.nominal_concurrency_shares,
        lendable_percent: fields.lendable_percent,
        borrowing_percent: fields.borrowing_limit_percent,
    };
    Ok(LevelSpec { shares, kind: Kind::Limited(queuing) })
}

/// The order in which schemas are tried.
pub fn in_order(schemas: &mut [FlowSchema]) {
    schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
}

/// Status, reason and message of the condition `Dangling`.
pub fn condition_texts(level: &str, is_there: bool) -> [String; 3] {
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named \"{level}\"");
    let (status, reason, message) = match is_there {
        true => ("False", "Found", format!("{about} and it exists")),
        false => ("True", "NotFound", format!("{about} but there is no such object")),
    };
    [status.to_owned(), reason.to_owned(), message]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(name: &str, spec: serde_json::Value, expected: Result<Kind, &str>) {
        let object = json!({"metadata": {"name": name, "uid": "u"}, "spec": spec}).to_string();
        let read = read_level(object.as_bytes()).map(|level| level.spec.kind);
        match (read, expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (read, _) => panic!("{read:?}"),
        }
    }

    #[test]
    fn levels_are_sound_in_themselves() {
        let limited = |response| json!({"type": "Limited", "limited": {"limitResponse": response}});
        let queue = |queues, hand| json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 9}});
        check("exempt", json!({"type": "Exempt"}), Ok(Kind::Exempt));
        check("other", json!({"type": "Exempt"}), Err("and no other"));
        check("exempt", limited(json!({"type": "Reject"})), Err("and no other"));
        check(
            "a",
            limited(json!({"type": "Reject"})),
            Ok(Kind::Limited(Queuing { queues: 0, hand_size: 0, length_limit: 0 })),
        );
        check("a", limited(queue(8, 2)), Ok(Kind::Limited(Queuing { queues: 8, hand_size: 2, length_limit: 9 })));
        check("a", limited(queue(1, 2)), Err("hands of 2"));
        check("a", limited(json!({"type": "Queue"})), Err("does not go with its limit response Queue"));
        check("a", json!({"type": "Limited"}), Err("does not go with its type Limited"));
    }

    #[test]
    fn schemas_are_tried_by_precedence_then_name() {
        let schema = |name: &str, precedence: i64| {
            let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": precedence});
            read_schema(json!({"metadata": {"name": name}, "spec": spec}).to_string().as_bytes()).unwrap()
        };
        let mut schemas = vec![schema("b", 5), schema("c", 1), schema("a", 5)];
        in_order(&mut schemas);
        assert_eq!(schemas.iter().map(|schema| schema.name.as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
        assert_eq!(schemas[0].dangling, ["", "", ""].map(str::to_owned));
    }
}
