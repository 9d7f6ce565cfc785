//! JSONPath as printer columns use it: fields, indices, slices, wildcards and filters.
//!
//! Not the whole language: no recursive descent, no unions. Invariant: evaluating visits each part of an object at most
//! once for each step of the path.

use serde_json::Value;

/// How many values a step may select.
const MAX_SELECTED: usize = 1000;

/// A path that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    All,
    Slice(Option<i64>, Option<i64>),
    Index(i64),
    Filter(Filter),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: JsonPath,
    test: Option<(Operator, Value)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
}

const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl JsonPath {
    /// Reads `.spec.replicas` and its like.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mut steps, mut rest) = (Vec::new(), text.trim());
        while !rest.is_empty() {
            rest = match rest.strip_prefix('.') {
                Some(after) => field(after, &mut steps)?,
                None => bracket(rest.strip_prefix('[')?, &mut steps)?,
            };
        }
        Some(Self(steps))
    }

    /// The first value that the path leads to.
    pub(crate) fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut selected = vec![object];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in selected {
                step.select(value, &mut next);
            }
            next.truncate(MAX_SELECTED);
            selected = next;
        }
        selected.first().copied()
    }
}

/// A field after its dot; a backslash lets it hold dots.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let (mut name, mut end, mut escaped) = (String::new(), text.len(), false);
    for (at, letter) in text.char_indices() {
        match letter {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '.' | '[' if !escaped => {
                end = at;
                break;
            }
            other => name.push(other),
        }
        escaped = false;
    }
    match name.as_str() {
        // `.[0]` and a lone dot name nothing.
        "" if text.is_empty() || text.starts_with('[') => {}
        "" => return None,
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Some(&text[end..])
}

/// What stands in brackets, after the opening one.
fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let end = closing(text)?;
    let (inner, rest) = (text[..end].trim(), &text[end + 1..]);
    let quoted = |quote: char| inner.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        text => text.parse::<i64>().ok().map(Some),
    };
    steps.push(if let Some(name) = quoted('\'').or_else(|| quoted('"')) {
        Step::Field(name.to_owned())
    } else if inner == "*" {
        Step::All
    } else if let Some(filter) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        Step::Filter(Filter::parse(filter)?)
    } else if let Some((from, to)) = inner.split_once(':') {
        Step::Slice(number(from)?, number(to)?)
    } else {
        Step::Index(inner.parse().ok()?)
    });
    Some(rest)
}

/// Where the closing bracket is, past quotes and brackets within.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        let left = text.trim().strip_prefix('@')?;
        let found = OPERATORS.iter().filter_map(|(sign, operator)| Some((left.find(sign)?, sign.len(), *operator)));
        let first = found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)));
        let Some((at, length, operator)) = first else {
            return Some(Self { left: JsonPath::parse(left)?, test: None });
        };
        let right = left[at + length..].trim();
        let quoted = |quote: char| right.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
        let literal = match quoted('\'').or_else(|| quoted('"')) {
            Some(text) => Value::from(text),
            None => serde_json::from_str(right).ok().filter(|value: &Value| !value.is_array() && !value.is_object())?,
        };
        Some(Self { left: JsonPath::parse(left[..at].trim())?, test: Some((operator, literal)) })
    }

    fn holds(&self, value: &Value) -> bool {
        let Some(left) = self.left.first(value) else { return false };
        let Some((operator, right)) = &self.test else { return true };
        let order = match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => left.as_str().zip(right.as_str()).map(|(left, right)| left.cmp(right)),
        };
        match operator {
            Operator::Equal => order.map_or(left == right, std::cmp::Ordering::is_eq),
            Operator::NotEqual => order.map_or(left != right, std::cmp::Ordering::is_ne),
            Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
            Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        }
    }
}

impl Step {
    fn select<'a>(&self, value: &'a Value, into: &mut Vec<&'a Value>) {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let place = |index: i64| if index < 0 { index.saturating_add(list.len() as i64) } else { index };
        let at = |index: i64| usize::try_from(place(index)).unwrap_or(0).min(list.len());
        match self {
            Self::Field(name) => into.extend(value.get(name)),
            Self::All => match value {
                Value::Object(fields) => into.extend(fields.values()),
                _ => into.extend(list),
            },
            Self::Index(index) => into.extend(usize::try_from(place(*index)).ok().and_then(|index| list.get(index))),
            Self::Slice(from, to) => {
                let (from, to) = (from.map_or(0, at), to.map_or(list.len(), at));
                into.extend(list.get(from..to.max(from)).unwrap_or_default());
            }
            Self::Filter(filter) => into.extend(list.iter().filter(|item| filter.holds(item))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({"metadata": {"annotations": {"a.b/c": "x"}}, "spec": {"n": 3, "list": [1, 2, 3]},
            "status": {"conditions": [{"type": "A", "status": "False", "n": 1}, {"type": "Ready", "status": "True", "n": 2}]}});
        let check = |path: &str, expected: Value| {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(found.first(&object).cloned().unwrap_or_default(), expected, "{path}");
        };
        check(".spec.n", json!(3));
        check(".metadata.annotations.a\\.b/c", json!("x"));
        check(".metadata.annotations['a.b/c']", json!("x"));
        check(".spec.list[1]", json!(2));
        check(".spec.list[-1]", json!(3));
        check(".spec.list[1:]", json!(2));
        check(".spec.list[*]", json!(1));
        check(".status.conditions[?(@.type==\"Ready\")].status", json!("True"));
        check(".status.conditions[?(@.type == 'Ready')].status", json!("True"));
        check(".status.conditions[?(@.n>1)].type", json!("Ready"));
        check(".status.conditions[?(@.n<=1)].type", json!("A"));
        check(".status.conditions[?(@.none)].type", json!(null));
        check(".none.at.all", json!(null));
        for bad in ["spec", ".a..b", ".a[", ".a[x]", ".a[?(b)]", ".a[?(@.b==c)]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }
}
