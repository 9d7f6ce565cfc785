//! Kubernetes' CEL: one environment with every library that the API server knows, the types of expressions, what
//! evaluations may cost, and values out of JSON.
//!
//! Pure. Not aware of who evaluates: rules of custom resources, selectors of devices and admission policies bring their own
//! variables. Invariant: compiling is bounded, and what an evaluation costs can be known before it begins.

mod admission;
mod authorizer;
mod binding;
mod call;
mod check;
mod cidrs;
mod construct;
mod cost;
mod device;
mod duration;
mod environment;
mod field_names;
mod formats;
mod formatting;
mod ips;
mod json;
mod json_patch;
mod lists;
mod ordered;
mod pattern;
mod quantity;
mod regexes;
mod sets;
#[cfg(test)]
mod tests;
mod timestamp;
mod two_variables;
mod unordered;
mod urls;
mod version;
mod walk;

pub use admission::admission_scope;
pub use authorizer::{Authorize, Question, Verdict, authorizer, resource_check};
pub use check::{Fields, ObjectType, Scope, Type, check};
pub use construct::constructed;
pub use cost::{CALL_LIMIT, MOST_ELEMENTS, cost, largest, path, reckon};
pub use device::{SelectorError, compile_selector};
pub use duration::DurationVal;
pub use environment::{compile, compile_checked, environment, error_text, evaluate, with_room};
pub use field_names::{escape, readable_name};
pub use formats::fits_format;
pub use json::{of_json, to_json};
pub use pattern::{Pattern, compile_pattern};
pub use quantity::QuantityVal;
pub use timestamp::TimestampVal;
pub use unordered::UnorderedList;
pub use version::VersionVal;
pub use walk::walk_selects;
