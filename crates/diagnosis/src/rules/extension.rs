//! Webhooks, aggregated servers, and what they hold up.

mod api_service;
mod stuck_namespace;
mod webhook;

use crate::rules::Rule;

pub(super) const RULES: &[&Rule] = &[&webhook::RULE, &api_service::RULE, &stuck_namespace::RULE];
