//! Label selectors: read from their text form or from objects, and asked whether they match.

use std::collections::BTreeMap;
use std::fmt;

use crate::names::{is_label_value, is_qualified_name};

/// A selector's text can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseSelectorError(pub(crate) String);

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it compares.
    pub operator: Operator,
    /// What with; empty for `Exists` and `DoesNotExist`.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether labels (looked up by `get`) meet the requirement.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let value = get(&self.key);
        let among = |value: &str| self.values.iter().any(|wanted| wanted == value);
        let compare = |order: fn(&i64, &i64) -> bool| {
            let actual = value.and_then(|value| value.parse::<i64>().ok());
            let wanted = self.values.first().and_then(|value| value.parse::<i64>().ok());
            actual.zip(wanted).is_some_and(|(actual, wanted)| order(&actual, &wanted))
        };
        match self.operator {
            Operator::In => value.is_some_and(among),
            Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => compare(i64::gt),
            Operator::Lt => compare(i64::lt),
        }
    }
}

/// A label selector: all requirements must be met; none selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// From requirements.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self(requirements)
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// From a map such as a Service's `spec.selector`.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        };
        Self(labels.into_iter().map(equals).collect())
    }

    /// From a `metav1.LabelSelector` object; absent where an operator is unknown.
    pub fn from_object(selector: &serde_json::Value) -> Option<Self> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let labels = selector["matchLabels"].as_object().into_iter().flatten();
        let mut requirements: Vec<Requirement> = labels
            .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In, values: vec![text(value)] })
            .collect();
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return None,
            };
            let values = expression["values"].as_array().into_iter().flatten().map(text).collect();
            requirements.push(Requirement { key: text(&expression["key"]), operator, values });
        }
        Some(Self(requirements))
    }

    /// Whether labels (looked up by `get`) meet all requirements.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(&get))
    }

    /// Whether these labels meet all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Reads the query-parameter form: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<Self, ParseSelectorError> {
        split_outside_parentheses(text).into_iter().map(parse_requirement).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            let Requirement { key, operator, values } = requirement;
            if index > 0 {
                f.write_str(",")?;
            }
            match (operator, values.as_slice()) {
                (Operator::In, [value]) => write!(f, "{key}={value}")?,
                (Operator::NotIn, [value]) => write!(f, "{key}!={value}")?,
                (Operator::In, values) => write!(f, "{key} in ({})", values.join(","))?,
                (Operator::NotIn, values) => write!(f, "{key} notin ({})", values.join(","))?,
                (Operator::Exists, _) => write!(f, "{key}")?,
                (Operator::DoesNotExist, _) => write!(f, "!{key}")?,
                (Operator::Gt, values) => write!(f, "{key}>{}", values.join(","))?,
                (Operator::Lt, values) => write!(f, "{key}<{}", values.join(","))?,
            }
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    if text.trim().is_empty() { Vec::new() } else { parts }
}

fn parse_requirement(part: &str) -> Result<Requirement, ParseSelectorError> {
    let part = part.trim();
    let make = |key: &str, operator, values: Vec<&str>| checked(key.trim(), operator, values);
    if let Some(key) = part.strip_prefix('!') {
        return make(key, Operator::DoesNotExist, Vec::new());
    }
    if let Some((head, list)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let values: Vec<&str> = list.split(',').map(str::trim).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => make(key, Operator::In, values),
            (Some(key), Some("notin"), None) => make(key, Operator::NotIn, values),
            _ => Err(unparsable(part)),
        };
    }
    for (symbol, operator) in
        [("!=", Operator::NotIn), ("==", Operator::In), ("=", Operator::In), (">", Operator::Gt), ("<", Operator::Lt)]
    {
        if let Some((key, value)) = part.split_once(symbol) {
            return make(key, operator, vec![value.trim()]);
        }
    }
    make(part, Operator::Exists, Vec::new())
}

fn checked(key: &str, operator: Operator, values: Vec<&str>) -> Result<Requirement, ParseSelectorError> {
    if !is_qualified_name(key) {
        return Err(ParseSelectorError(format!(
            "key: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
        )));
    }
    let numeric = matches!(operator, Operator::Gt | Operator::Lt);
    for value in &values {
        if !is_label_value(value) || (numeric && value.parse::<i64>().is_err()) {
            return Err(ParseSelectorError(format!(
                "values[0][{key}]: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )));
        }
    }
    let values = values.into_iter().map(str::to_owned).collect();
    Ok(Requirement { key: key.to_owned(), operator, values })
}

fn unparsable(part: &str) -> ParseSelectorError {
    ParseSelectorError(format!("unable to parse requirement: found '{part}', expected: in, notin, =, ==, !=, gt, lt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> BTreeMap<String, String> {
        [("app", "web"), ("tier", "front"), ("size", "5")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn label_selectors_match_and_print() {
        for (text, matches, printed) in [
            ("", true, ""),
            ("app=web", true, "app=web"),
            ("app==web,tier!=back", true, "app=web,tier!=back"),
            ("app in (api, web), tier", true, "app in (api,web),tier"),
            ("app notin (api,web)", false, "app notin (api,web)"),
            ("!missing", true, "!missing"),
            ("missing!=x", true, "missing!=x"),
            ("missing", false, "missing"),
            ("size>4,size<6", true, "size>4,size<6"),
            ("app>4", false, "app>4"),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels()), matches, "{text}");
            assert_eq!(selector.to_string(), printed);
        }
        for text in ["a in b", "=x", "a=/", "a within (b)", ","] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
