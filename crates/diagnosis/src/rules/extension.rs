//! Webhooks, aggregated servers, and what they hold up.

mod api_service;
mod backends;
mod conversion;
mod dead_endpoints;
mod deadlock;
mod slow_webhooks;
mod stuck_namespace;
mod webhook;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[
    &webhook::RULE,
    &slow_webhooks::RULE,
    &deadlock::RULE,
    &dead_endpoints::RULE,
    &api_service::RULE,
    &stuck_namespace::RULE,
    &conversion::RULE,
];
