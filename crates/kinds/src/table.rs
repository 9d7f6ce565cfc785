//! What tables of all kinds share: columns, ages, and cells out of labels, selectors and containers.
//!
//! The invariant: every text is what upstream's printers write, to the byte.

use std::borrow::Cow;

use jiff::Timestamp;
use kedge_meta::parse_time;
use serde_json::Value;

use crate::strategy::Column;
use crate::value::{entries, items, text, texts};

/// Of kinds without columns of their own: name and time of creation, as upstream's default table has it.
pub(crate) const DEFAULT_COLUMNS: &[Column] =
    &[NAME, column("Created At", "date", "Time at which the object was created")];

/// The primary column.
pub(crate) const NAME: Column = Column {
    name: Cow::Borrowed("Name"),
    kind: Cow::Borrowed("string"),
    format: Cow::Borrowed("name"),
    description: Cow::Borrowed("Name of the object, unique among its siblings"),
    priority: 0,
};

/// Time since creation.
pub(crate) const AGE: Column = column("Age", "string", "Time since the object was created");

/// A column that is always shown.
pub(crate) const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed(kind),
        format: Cow::Borrowed(""),
        description: Cow::Borrowed(description),
        priority: 0,
    }
}

/// A column of wide output.
pub(crate) const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column {
        name: Cow::Borrowed(name),
        kind: Cow::Borrowed(kind),
        format: Cow::Borrowed(""),
        description: Cow::Borrowed(description),
        priority: 1,
    }
}

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    Value::from(text(object, &["metadata", "name"]))
}

/// The time at which an object was created.
pub(crate) fn created_at(object: &Value) -> Value {
    Value::from(text(object, &["metadata", "creationTimestamp"]))
}

/// The time since an object was created, as upstream prints it; `<unknown>` without a creation time.
pub fn age(object: &Value, now: Timestamp) -> Value {
    Value::from(since(text(object, &["metadata", "creationTimestamp"]), now))
}

/// The time since `time` (RFC 3339); `<unknown>` where it is empty.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match parse_time(time) {
        Some(time) => human_duration(now.duration_since(time).as_secs()),
        None => "<unknown>".to_owned(),
    }
}

/// Upstream's `duration.HumanDuration` of whole seconds: two or three significant figures, such as `2m30s`, `5h`, `3d4h`.
pub fn human_duration(seconds: i64) -> String {
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// `labels.FormatLabels`: `a=b,c=d`, or `<none>`.
pub(crate) fn labels(object: &Value, path: &[&str]) -> String {
    let pairs: Vec<String> =
        entries(object, path).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or_none(pairs.join(","))
}

/// `metav1.FormatLabelSelector`: `<none>` for a selector that is absent or empty.
pub(crate) fn selector(object: &Value, path: &[&str]) -> String {
    let Some(selector) = crate::value::at(object, path) else {
        return "<none>".to_owned();
    };
    let mut requirements: Vec<(String, String)> = entries(selector, &["matchLabels"])
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in items(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let mut values: Vec<&str> = texts(expression, &["values"]).collect();
        values.sort_unstable();
        let printed = match text(expression, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        requirements.push((key.to_owned(), printed));
    }
    requirements.sort_by(|a, b| a.0.cmp(&b.0));
    or_none(requirements.into_iter().map(|(_, printed)| printed).collect::<Vec<_>>().join(","))
}

/// The text form of a selector (a LabelSelector object, a map of labels, or already text) for `Scale.status.selector`; empty
/// where there is none.
pub fn scale_selector(selector_value: &Value) -> String {
    if let Value::String(text) = selector_value {
        return text.clone();
    }
    let structured = ["matchLabels", "matchExpressions"]
        .iter()
        .any(|field| selector_value[field].is_object() || selector_value[field].is_array());
    let printed = if structured { selector(selector_value, &[]) } else { labels(selector_value, &[]) };
    if printed == "<none>" { String::new() } else { printed }
}

/// Names and images of a pod spec's containers, joined by commas.
pub(crate) fn containers(pod_spec: Option<&Value>) -> (Value, Value) {
    let containers = pod_spec.map(|spec| items(spec, &["containers"])).unwrap_or_default();
    let join = |field: &str| {
        let texts: Vec<&str> = containers.iter().map(|container| text(container, &[field])).collect();
        Value::from(texts.join(","))
    };
    (join("name"), join("image"))
}

/// The first three texts and how many more there are; `<unset>` where there is none.
pub(crate) fn first_three(all: &[String]) -> String {
    match all.len() {
        0 => "<unset>".to_owned(),
        1..=3 => all.join(","),
        count => format!("{} + {} more...", all[..3].join(","), count - 3),
    }
}

/// The text, or `<none>` where it is empty.
pub(crate) fn or_none(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "<none>".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_printed_as_upstream_prints_them() {
        for (seconds, printed) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_460, "3h11m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (273_600, "3d4h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human_duration(seconds), printed, "{seconds}");
        }
    }

    #[test]
    fn selectors_are_printed_as_upstream_prints_them() {
        let check = |selector_value: Value, printed: &str| {
            assert_eq!(selector(&json!({"selector": selector_value}), &["selector"]), printed);
        };
        check(Value::Null, "<none>");
        check(json!({}), "<none>");
        check(json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2");
        check(
            json!({"matchLabels": {"z": "2"}, "matchExpressions": [
                {"key": "b", "operator": "In", "values": ["y", "x"]}, {"key": "a", "operator": "DoesNotExist"},
                {"key": "c", "operator": "Exists"}, {"key": "d", "operator": "NotIn", "values": ["v"]}]}),
            "!a,b in (x,y),c,d notin (v),z=2",
        );
    }
}
