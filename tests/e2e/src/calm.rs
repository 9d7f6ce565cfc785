//! What `kedge doctor --output json` may say where nothing is wrong.
//!
//! Invariant: its exit code is held against what it says, too.

use serde_json::Value;

use crate::kubectl::Output;

/// Nothing is named but these warnings; `during` is what people do to the cluster meanwhile.
pub fn names_only(output: &Output, during: &str, warnings: &[&str]) {
    let causes = causes(output, during);
    let is_allowed = |cause: &Value| cause["severity"] == "warning" && warnings.iter().any(|id| cause["id"] == **id);
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
