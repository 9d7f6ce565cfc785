//! Kubernetes' CEL: one environment with every library that the API server knows, what evaluations may cost, and values
//! out of JSON.
//!
//! Pure. Not aware of who evaluates: rules of custom resources, selectors of devices and admission policies bring their own
//! variables. Invariant: compiling is bounded, and what an evaluation costs can be known before it begins.
// DIVERGES: times and durations, and comprehensions of two variables, are not there.

mod authorizer;
mod binding;
mod call;
mod cidrs;
mod cost;
mod environment;
mod formats;
mod ips;
mod json;
mod json_patch;
mod lists;
mod names;
mod pattern;
mod quantity;
mod regexes;
mod sets;
#[cfg(test)]
mod tests;
mod urls;
mod version;

pub use authorizer::{Authorize, Question, Verdict, authorizer, resource_check};
pub use cost::{CALL_LIMIT, MOST_ELEMENTS, cost, largest, path, reckon};
pub use environment::{compile, environment, error_text};
pub use formats::fits_format;
pub use json::{of_json, to_json};
pub use names::{unknown_names, walk};
pub use pattern::{Pattern, compile_pattern};
pub use quantity::QuantityVal;
pub use version::VersionVal;
