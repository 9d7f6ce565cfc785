//! What `kedge doctor --output json` may say where nothing is wrong.
//!
//! Invariant: its exit code is held against what it says, too.

use serde_json::Value;

use crate::kubectl::Output;

/// What a machine shows by itself that is short of everything: a slow disk under the store, a runtime that answers late.
pub const OF_THE_MACHINE: [&str; 2] = ["B1", "E4"];

/// Nothing is named but these warnings, and those of the machine that the test runs on; `during` is what people do to the cluster meanwhile.
pub fn names_only(output: &Output, during: &str, warnings: &[&str]) {
    let causes = causes(output, during);
    let known = || warnings.iter().chain(&OF_THE_MACHINE);
    let is_allowed = |cause: &Value| cause["severity"] == "warning" && known().any(|id| cause["id"] == **id);
    assert!(causes.iter().all(is_allowed), "during {during}: {causes:#?}");
    assert_eq!(output.code, Some(i32::from(!causes.is_empty())), "during {during}: {}", output.all());
}

/// No failure is named; warnings may be, as they are the matter of the machine that the test runs on.
pub fn names_no_failure(output: &Output, during: &str) {
    let causes = causes(output, during);
    assert!(causes.iter().all(|cause| cause["severity"] == "warning"), "during {during}: {causes:#?}");
    assert_eq!(output.code, Some(i32::from(!causes.is_empty())), "during {during}: {}", output.all());
}

fn causes(output: &Output, during: &str) -> Vec<Value> {
    let said: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("during {during}: {error} in\n{}", output.all()));
    said["causes"].as_array().expect("a list").clone()
}
