//! The pod network, names, and the rules of Services.

mod bgp;
mod bird;
mod bridged_services;
mod checksum;
mod conntrack_limits;
mod corefile;
mod detection;
mod dns_loop;
mod dns_waits;
mod endpoint_name;
mod flannel;
mod forward_policy;
mod hidden_peer;
mod leftover;
mod lookups;
mod missing_plugin;
mod mtu;
mod nameservers;
mod no_addresses;
mod no_ranges;
mod overlap;
mod peers;
mod plugin_token;
mod policy_cuts_names;
mod proxy_rules;
mod sandbox;
mod slow_lookups;
mod tunnel;
mod virtual_address;

use crate::rules::Rule;

pub(super) use bridged_services::bridge_of_pods;

pub(super) const RULES: &[&Rule] = &[
    &bgp::RULE,
    &detection::RULE,
    &hidden_peer::RULE,
    &bird::RULE,
    &checksum::RULE,
    &tunnel::RULE,
    &mtu::RULE,
    &flannel::RULE,
    &no_ranges::RULE,
    &missing_plugin::RULE,
    &leftover::RULE,
    &no_addresses::RULE,
    &dns_loop::RULE,
    &dns_waits::RULE,
    &corefile::RULE,
    &nameservers::RULE,
    &proxy_rules::RULE,
    &conntrack_limits::RULE,
    &bridged_services::RULE,
    &forward_policy::RULE,
    &overlap::RULE,
    &endpoint_name::RULE,
    &plugin_token::RULE,
    &virtual_address::RULE,
    &policy_cuts_names::RULE,
    &slow_lookups::RULE,
];
