//! One step of a field path: a field name, a list item by key or by value, or an index.
//!
//! Written as `f:name`, `k:{"name":"a"}`, `v:"a"`, `i:0` in managed fields, and as `.name`, `[name="a"]`, `[="a"]`, `[0]` in
//! texts. The invariant: elements have a total order, the one in which upstream lists them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement<'a> {
    /// A field of a structure or entry of a map.
    Field(Cow<'a, str>),
    /// A list item by its key fields, sorted by name.
    Key(Vec<(Cow<'a, str>, Scalar<'a>)>),
    /// An item of a set.
    Value(Scalar<'a>),
    /// A list item by its position.
    Index(i64),
}

/// A value that can be part of a path.
#[derive(Debug, Clone)]
pub enum Scalar<'a> {
    /// A number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// Boolean.
    Flag(bool),
    /// Null, or what is no scalar.
    Null,
}

impl<'a> Scalar<'a> {
    /// The value as a scalar; containers count as null.
    pub fn of(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Scalar::Text(Cow::Borrowed(text)),
            Value::Bool(flag) => Scalar::Flag(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Scalar::Integer(integer),
                None => Scalar::Float(number.as_f64().unwrap_or_default()),
            },
            _ => Scalar::Null,
        }
    }

    fn into_owned(self) -> Scalar<'static> {
        match self {
            Scalar::Integer(number) => Scalar::Integer(number),
            Scalar::Float(number) => Scalar::Float(number),
            Scalar::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
            Scalar::Flag(flag) => Scalar::Flag(flag),
            Scalar::Null => Scalar::Null,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Scalar::Integer(_) | Scalar::Float(_) => 0,
            Scalar::Text(_) => 1,
            Scalar::Flag(_) => 2,
            Scalar::Null => 3,
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn number(&self) -> f64 {
        match self {
            Scalar::Integer(number) => *number as f64,
            Scalar::Float(number) => *number,
            _ => 0.0,
        }
    }
}

impl PartialEq for Scalar<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar<'_> {}

impl PartialOrd for Scalar<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Scalar::Integer(a), Scalar::Integer(b)) => a.cmp(b),
            (Scalar::Text(a), Scalar::Text(b)) => a.cmp(b),
            (Scalar::Flag(a), Scalar::Flag(b)) => a.cmp(b),
            (a, b) if a.rank() == 0 && b.rank() == 0 => a.number().total_cmp(&b.number()),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl fmt::Display for Scalar<'_> {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Integer(number) => write!(f, "{number}"),
            Scalar::Float(number) => write!(f, "{number}"),
            Scalar::Text(text) => f.write_str(&Value::from(text.as_ref()).to_string()),
            Scalar::Flag(flag) => write!(f, "{flag}"),
            Scalar::Null => f.write_str("null"),
        }
    }
}

impl fmt::Display for PathElement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
            PathElement::Key(fields) => {
                f.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

impl<'a> PathElement<'a> {
    /// The element of a key in `fieldsV1`. `Ok(None)` for a sort of element that is not known; it is to be ignored.
    pub(super) fn decode(key: &'a str) -> Result<Option<Self>, ()> {
        let (sort, content) = key.split_once(':').ok_or(())?;
        Ok(Some(match sort {
            "f" => PathElement::Field(Cow::Borrowed(content)),
            "v" => {
                let value: Value = serde_json::from_str(content).map_err(drop)?;
                PathElement::Value(Scalar::of(&value).into_owned())
            }
            "i" => PathElement::Index(content.parse().map_err(drop)?),
            "k" => {
                let Ok(Value::Object(fields)) = serde_json::from_str(content) else { return Err(()) };
                let fields = fields.iter();
                PathElement::Key(
                    fields.map(|(name, value)| (Cow::Owned(name.clone()), Scalar::of(value).into_owned())).collect(),
                )
            }
            _ => return Ok(None),
        }))
    }

    /// The key in `fieldsV1`.
    pub(super) fn encode(&self) -> String {
        match self {
            PathElement::Field(name) => {
                let mut key = String::with_capacity(name.len() + 2);
                key.push_str("f:");
                key.push_str(name);
                key
            }
            PathElement::Value(value) => format!("v:{value}"),
            PathElement::Index(index) => format!("i:{index}"),
            PathElement::Key(fields) => {
                let mut key = String::from("k:{");
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    key.push_str(&format!("{comma}{}:{value}", Value::from(name.as_ref())));
                }
                key.push('}');
                key
            }
        }
    }
}
