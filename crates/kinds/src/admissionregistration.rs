//! The kinds of `admissionregistration.k8s.io`.
//!
//! Not checked here: expressions of webhooks, which the API server looks at. The versions that are not stored have the stored
//! version's shape.

mod binding;
mod expressions;
mod matching;
mod policy;
mod webhooks;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "mutatingadmissionpolicies" => &policy::Policy { rules: "mutations" },
        "mutatingadmissionpolicybindings" | "validatingadmissionpolicybindings" => &binding::PolicyBinding,
        "mutatingwebhookconfigurations" => &webhooks::WebhookConfiguration { mutating: true },
        "validatingadmissionpolicies" => &policy::Policy { rules: "validations" },
        "validatingwebhookconfigurations" => &webhooks::WebhookConfiguration { mutating: false },
        _ => &Generic::PLAIN,
    }
}
