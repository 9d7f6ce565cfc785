//! The API's behaviour, in process over a store in memory.
//!
//! One file for each group of verbs; every case says what is sent and what must come back.

#![allow(clippy::unwrap_used)]

#[path = "api/access.rs"]
mod access;
#[path = "api/aggregation.rs"]
mod aggregation;
#[path = "api/audit.rs"]
mod audit;
#[path = "api/conversion.rs"]
mod conversion;
#[path = "api/crud.rs"]
mod crud;
#[path = "api/custom.rs"]
mod custom;
#[path = "api/custom_rules.rs"]
mod custom_rules;
#[path = "api/custom_schemas.rs"]
mod custom_schemas;
#[path = "api/deletion.rs"]
mod deletion;
#[path = "api/device_claims.rs"]
mod device_claims;
#[path = "api/discovery.rs"]
mod discovery;
#[path = "api/fairness.rs"]
mod fairness;
#[path = "api/harness.rs"]
mod harness;
#[path = "api/histories.rs"]
mod histories;
#[path = "api/hook_server.rs"]
mod hook_server;
#[path = "api/legacy_tokens.rs"]
mod legacy_tokens;
#[path = "api/lifecycles.rs"]
mod lifecycles;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/local.rs"]
mod local;
#[path = "api/metrics.rs"]
mod metrics;
#[path = "api/mutating_policies.rs"]
mod mutating_policies;
#[path = "api/node_restriction.rs"]
mod node_restriction;
#[path = "api/patches.rs"]
mod patches;
#[path = "api/pod_security.rs"]
mod pod_security;
#[path = "api/pods.rs"]
mod pods;
#[path = "api/resizes.rs"]
mod resizes;
#[path = "api/tokens.rs"]
mod tokens;
#[path = "api/validating_policies.rs"]
mod validating_policies;
#[path = "api/watches.rs"]
mod watches;
#[path = "api/webhook_choice.rs"]
mod webhook_choice;
#[path = "api/webhook_failures.rs"]
mod webhook_failures;
#[path = "api/webhooks.rs"]
mod webhooks;
