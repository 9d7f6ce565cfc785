//! Query strings: percent-decoding and the typed option sets that verbs take from them.
//!
//! Not a URL library: keys are matched exactly and the first value of a key counts, as in Go's `url.Values.Get`.
//! Invariant: nothing here looks at an object; what is wrong with an option is said as an [`ApiStatus`].

use std::time::Duration;

use kedge_meta::{ApiStatus, FieldError, FieldPath, FieldSelector, LabelSelector};
use serde_json::json;

/// A decoded query string.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key, true), decode(value, true))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The first value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of `key`, absent where it is empty.
    pub(crate) fn non_empty(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// Every value of `key`.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A boolean as upstream reads it: present and neither `false` nor `0` is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or(false)
    }

    /// Like [`Query::flag`], with "absent" kept apart.
    pub(crate) fn optional_flag(&self, key: &str) -> Option<bool> {
        self.get(key).map(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// An integer.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ApiStatus> {
        let Some(text) = self.non_empty(key) else { return Ok(None) };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| ApiStatus::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
    }

    /// Whether the request asks for everything but the commit. Only `All` is a value.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiStatus> {
        let values: Vec<&str> = self.all("dryRun").filter(|value| !value.is_empty()).collect();
        check_dry_run(&values)
    }
}

/// Upstream's check of `dryRun` values, from a query or from `DeleteOptions`.
pub(crate) fn check_dry_run(values: &[&str]) -> Result<bool, ApiStatus> {
    if values.iter().any(|value| *value != "All") {
        let error = FieldError::not_supported(&FieldPath::new("dryRun"), &json!(values), &["All"]);
        return Err(ApiStatus::invalid("meta.k8s.io", "CreateOptions", "", &[error]));
    }
    Ok(!values.is_empty())
}

/// Percent-decodes; in queries `+` is a space. Broken escapes stay as they are, other than in Go, where they are refused
/// long before an API path is looked at.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escape.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Which revision a read asks for (`resourceVersion` with `resourceVersionMatch`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtRevision {
    /// The most recent state.
    Latest,
    /// Any state will do (`0`).
    Any,
    /// This one or a later one.
    NotOlderThan(u64),
    /// Exactly this one.
    Exactly(u64),
}

/// `metav1.ListOptions`.
#[derive(Debug, Clone)]
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) watch: bool,
    pub(crate) allow_bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) at: AtRevision,
    pub(crate) timeout: Option<Duration>,
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: Option<String>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiStatus> {
        let bad = |error: kedge_meta::ParseSelectorError| ApiStatus::bad_request(error.to_string());
        let limit = query.integer("limit")?.filter(|limit| *limit > 0);
        let options = Self {
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or("")).map_err(bad)?,
            fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or("")).map_err(bad)?,
            watch: query.flag("watch"),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
            at: AtRevision::Latest,
            timeout: query.integer("timeoutSeconds")?.filter(|s| *s > 0).map(|s| Duration::from_secs(s as u64)),
            limit: limit.and_then(|limit| usize::try_from(limit).ok()),
            continue_token: query.non_empty("continue").map(str::to_owned),
        };
        let revision = query.non_empty("resourceVersion");
        let matching = query.non_empty("resourceVersionMatch");
        options.check(revision, matching)?;
        let at = options.read_revision(revision, matching)?;
        Ok(Self { at, ..options })
    }

    /// The rules of upstream's `ValidateListOptions`.
    fn check(&self, revision: Option<&str>, matching: Option<&str>) -> Result<(), ApiStatus> {
        let forbidden = |field: &str, why: &str| FieldError::forbidden(&FieldPath::new(field), why);
        let mut errors = Vec::new();
        if let Some(matching) = matching {
            if !self.watch && revision.is_none() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(forbidden("resourceVersionMatch", why));
            }
            if self.continue_token.is_some() {
                errors.push(forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if matching != "Exact" && matching != "NotOlderThan" {
                let path = FieldPath::new("resourceVersionMatch");
                errors.push(FieldError::not_supported(&path, &json!(matching), &["Exact", "NotOlderThan", ""]));
            }
            if matching == "Exact" && revision == Some("0") {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(forbidden("resourceVersionMatch", why));
            }
        }
        match (self.send_initial_events, self.watch) {
            (Some(_), false) => {
                errors.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
            }
            (Some(_), true) if matching != Some("NotOlderThan") => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(forbidden("resourceVersionMatch", why));
            }
            (None, true) if matching.is_some() => {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(forbidden("resourceVersionMatch", why));
            }
            _ => {}
        }
        if errors.is_empty() { Ok(()) } else { Err(ApiStatus::invalid("meta.k8s.io", "ListOptions", "", &errors)) }
    }

    fn read_revision(&self, revision: Option<&str>, matching: Option<&str>) -> Result<AtRevision, ApiStatus> {
        let Some(text) = revision else { return Ok(AtRevision::Latest) };
        let revision = parse_revision(text)?;
        if revision == 0 {
            return Ok(AtRevision::Any);
        }
        if self.continue_token.is_some() && !self.watch {
            return Err(ApiStatus::bad_request("specifying resource version is not allowed when using continue"));
        }
        // Without a match, a limit has always meant exactly this revision (upstream's table of semantics).
        let exact = matching == Some("Exact") || (matching.is_none() && self.limit.is_some() && !self.watch);
        Ok(if exact { AtRevision::Exactly(revision) } else { AtRevision::NotOlderThan(revision) })
    }
}

/// A `resourceVersion` that must be a number.
pub(crate) fn parse_revision(text: &str) -> Result<u64, ApiStatus> {
    text.parse().map_err(|_| {
        let path = FieldPath::new("resourceVersion");
        let why = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
        ApiStatus::bad_request(FieldError::invalid(&path, &json!(text), &why).to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("a=1&b=x%20y+z&b=2&flag&off=false&labelSelector=a%3Db%2Cc");
        assert_eq!(query.get("b"), Some("x y z"));
        assert_eq!(query.all("b").collect::<Vec<_>>(), ["x y z", "2"]);
        assert!(query.flag("flag") && !query.flag("off") && !query.flag("missing"));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(decode("%zz%4", false), "%zz%4");
        assert_eq!(decode("a+b%2F", false), "a+b/");
    }

    fn check(query: &str, expected: Result<AtRevision, &str>) {
        let parsed = ListOptions::parse(&Query::parse(query));
        match (parsed, expected) {
            (Ok(options), Ok(at)) => assert_eq!(options.at, at, "{query}"),
            (Err(status), Err(text)) => assert!(status.message.contains(text), "{query}: {}", status.message),
            (parsed, _) => panic!("{query}: {parsed:?}"),
        }
    }

    #[test]
    fn revisions_are_read_with_upstreams_rules() {
        check("", Ok(AtRevision::Latest));
        check("resourceVersion=0", Ok(AtRevision::Any));
        check("resourceVersion=7", Ok(AtRevision::NotOlderThan(7)));
        check("resourceVersion=7&limit=5", Ok(AtRevision::Exactly(7)));
        check("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan", Ok(AtRevision::NotOlderThan(7)));
        check("resourceVersion=7&resourceVersionMatch=Exact", Ok(AtRevision::Exactly(7)));
        check("resourceVersionMatch=Exact", Err("forbidden unless resourceVersion is provided"));
        check("resourceVersion=0&resourceVersionMatch=Exact", Err("is forbidden for resourceVersion \"0\""));
        check("resourceVersion=7&resourceVersionMatch=Newer", Err("Unsupported value: \"Newer\""));
        check("resourceVersion=x", Err("Invalid value: \"x\""));
        check("resourceVersion=7&continue=abc", Err("not allowed when using continue"));
        check("sendInitialEvents=true", Err("sendInitialEvents is forbidden for list"));
        check("watch=1&sendInitialEvents=true", Err("requires setting resourceVersionMatch"));
        check("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", Ok(AtRevision::Latest));
        check("labelSelector=a%20in%20b", Err("Invalid value: \"a in b\""));
        check("limit=x", Err("invalid syntax"));
    }
}
