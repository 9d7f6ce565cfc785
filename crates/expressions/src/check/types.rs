//! Types, and how messages write them.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display, Formatter};
use std::sync::Arc;

/// The fields of an object type, which may refer to itself.
pub trait Fields: Debug + Send + Sync {
    /// The type of a field, if there is such a field.
    fn field(&self, name: &str) -> Option<Type>;
}

impl Fields for BTreeMap<String, Type> {
    fn field(&self, name: &str) -> Option<Type> {
        self.get(name).cloned()
    }
}

/// A type with named fields. Two of the same name are the same.
#[derive(Debug, Clone)]
pub struct ObjectType {
    /// As messages show it.
    pub name: Arc<str>,
    /// What it holds.
    pub fields: Arc<dyn Fields>,
}

/// The type of an expression.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Type {
    /// Nothing is known: goes with everything.
    Dyn,
    /// What something wrong comes to; said once, it goes with everything.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    /// The type of types.
    Type(Box<Type>),
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    /// A type of a library by its name, such as `optional_type`, with its parameters.
    Opaque(Arc<str>, Vec<Type>),
    Object(ObjectType),
    /// A parameter of a signature, by its letter.
    Parameter(char),
    /// A type that is still to be found.
    Free(usize),
}

impl Type {
    /// A list of these.
    pub fn list(items: Self) -> Self {
        Self::List(Box::new(items))
    }

    /// A map from texts to these.
    pub fn map(values: Self) -> Self {
        Self::Map(Box::new(Self::String), Box::new(values))
    }

    /// An object of these fields.
    pub fn object<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let fields: BTreeMap<String, Self> = fields.into_iter().map(|(name, own)| (name.to_owned(), own)).collect();
        Self::Object(ObjectType { name: name.into(), fields: Arc::new(fields) })
    }

    /// A type of a library.
    pub fn opaque(name: &str) -> Self {
        Self::Opaque(name.into(), Vec::new())
    }

    pub(super) fn optional(of: Self) -> Self {
        Self::Opaque("optional_type".into(), vec![of])
    }

    /// What an optional type holds.
    pub(super) fn within_optional(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, of) if &**name == "optional_type" => of.first(),
            _ => None,
        }
    }

    /// Whether both are the same type, down to the last parameter.
    pub fn is(&self, other: &Self) -> bool {
        let all = |one: &[Self], other: &[Self]| {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is(other))
        };
        match (self, other) {
            (Self::List(one), Self::List(other)) | (Self::Type(one), Self::Type(other)) => one.is(other),
            (Self::Map(key, value), Self::Map(other_key, other_value)) => key.is(other_key) && value.is(other_value),
            (Self::Opaque(one, of), Self::Opaque(other, of_other)) => one == other && all(of, of_other),
            (Self::Object(one), Self::Object(other)) => one.name == other.name,
            (Self::Parameter(one), Self::Parameter(other)) => one == other,
            (Self::Free(one), Self::Free(other)) => one == other,
            _ => self.is_same_kind(other) && self.parts().is_empty() && !matches!(self, Self::Object(_)),
        }
    }

    /// The type as messages about results write it, where some have longer names.
    #[must_use]
    pub fn declared(&self) -> Self {
        match self {
            Self::Null => Self::opaque("null_type"),
            Self::Timestamp => Self::opaque("google.protobuf.Timestamp"),
            Self::Duration => Self::opaque("google.protobuf.Duration"),
            other => other.rebuilt(&mut Self::declared),
        }
    }

    pub(super) fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    pub(super) fn is_dynamic(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// The types that it is made of.
    pub(super) fn parts(&self) -> Vec<&Self> {
        match self {
            Self::List(one) | Self::Type(one) => vec![one],
            Self::Map(key, value) => vec![key, value],
            Self::Opaque(_, of) => of.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it has more parts than so many.
    pub(super) fn is_larger_than(&self, most: usize) -> bool {
        fn count(of: &Type, left: &mut usize) {
            *left = left.saturating_sub(1);
            for part in of.parts().into_iter().take(*left) {
                count(part, left);
            }
        }
        let mut left = most + 1;
        count(self, &mut left);
        left == 0
    }

    /// The same type with other parts.
    pub(super) fn rebuilt(&self, part: &mut dyn FnMut(&Self) -> Self) -> Self {
        match self {
            Self::List(one) => Self::List(Box::new(part(one))),
            Self::Type(one) => Self::Type(Box::new(part(one))),
            Self::Map(key, value) => Self::Map(Box::new(part(key)), Box::new(part(value))),
            Self::Opaque(name, of) => Self::Opaque(name.clone(), of.iter().map(part).collect()),
            other => other.clone(),
        }
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Dyn => "dyn",
            Self::Error => "!error!",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::List(items) => return write!(f, "list({items})"),
            Self::Map(keys, values) => return write!(f, "map({keys}, {values})"),
            Self::Type(of) => return write!(f, "type({of})"),
            Self::Object(object) => &object.name,
            Self::Parameter(letter) => return write!(f, "{letter}"),
            Self::Free(index) => return write!(f, "_var{index}"),
            Self::Opaque(name, of) if of.is_empty() => name,
            Self::Opaque(name, of) => {
                let of: Vec<String> = of.iter().map(ToString::to_string).collect();
                return write!(f, "{name}({})", of.join(", "));
            }
        };
        f.write_str(name)
    }
}
