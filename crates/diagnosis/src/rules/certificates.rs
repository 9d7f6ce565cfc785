//! Certificates, identity and time.

mod clock_as_trust;
mod expired;
mod expired_bootstrap;
mod expired_client;
mod front_proxy;
mod identity;
mod names;
mod not_yet_valid;
mod rotation;
mod serving_requests;
mod stale_process;
mod token_keys;
mod unknown_authority;
mod webhook_authority;

use crate::evidence::{Evidence, Item};
use crate::facts::{CertificateFact, Fact};
use crate::finding::Subject;
use crate::rules::Rule;
use crate::rules::signs::Sign;

pub(super) const RULES: &[&Rule] = &[
    &expired::RULE,
    &stale_process::RULE,
    &expired_bootstrap::RULE,
    &expired_client::RULE,
    &rotation::RULE,
    &serving_requests::RULE,
    &names::RULE,
    &unknown_authority::RULE,
    &not_yet_valid::RULE,
    &clock_as_trust::RULE,
    &identity::RULE,
    &token_keys::RULE,
    &front_proxy::RULE,
    &webhook_authority::RULE,
];

/// What a program or a call of the API server says of a certificate.
struct Said<'a> {
    item: &'a Item,
    subject: Subject,
    /// Who says it, in words.
    who: &'a str,
    text: &'a str,
    proof: Vec<usize>,
}

/// Where a sign is seen: in logs, and in the errors of calls. Lines about registries, webhooks and the store's own
/// connections are other troubles.
fn said<'a>(evidence: &'a Evidence, sign: &Sign) -> Vec<Said<'a>> {
    let calls = evidence.pick(|fact| match fact {
        Fact::Call { target, error: Some(error) } => Some((target.as_str(), error.as_str())),
        _ => None,
    });
    let calls = calls.filter(|(_, _, (_, error))| sign.is_said_by(error));
    let calls = calls.map(|(index, item, (target, error))| Said {
        item,
        subject: Subject::new("Server", target),
        who: target,
        text: error,
        proof: vec![index],
    });
    let lines = sign.told_where(evidence, is_about_the_cluster).into_iter().map(|told| Said {
        item: told.item,
        subject: told.source.subject(),
        who: told.source.program(),
        text: told.text.trim(),
        proof: told.lines,
    });
    calls.chain(lines).collect()
}

/// Whether a line tells of the cluster's own connections, not of a registry's or a webhook's.
fn is_about_the_cluster(line: &str) -> bool {
    let foreign =
        ["pull", "registry", "webhook", "rejected connection", "/v2/", "aggregat", "APIService", "requestheader"];
    !foreign.iter().any(|word| line.contains(word))
}

/// Certificates as files, and not as somebody serves them.
fn files(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &CertificateFact)> {
    evidence.certificates().filter(|(_, _, certificate)| certificate.served_by.is_none())
}

/// Certificates as they are served, with the address.
fn served(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &CertificateFact, &str)> {
    evidence
        .certificates()
        .filter_map(|(index, item, certificate)| Some((index, item, certificate, certificate.served_by.as_deref()?)))
}

/// Whether a file is where a kubelet keeps what it shows the API server.
fn is_kubelets(path: &str) -> bool {
    path.ends_with("kubelet-client-current.pem") || path.ends_with("/kubelet.conf")
}
