//! What else would look the same, was looked for, and is not it.
//!
//! A rule is ruled out when it would explain something that was found, found nothing itself, and what it reads was there to
//! be read. Invariant: what could not be looked at rules nothing out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::causes::Found;
use crate::evidence::Evidence;
use crate::facts::{Fact, LogSource};
use crate::finding::Severity;
use crate::rules::rules;

/// A cause that was considered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuledOut {
    /// The id of the catalogue.
    pub id: &'static str,
    /// The cause in a few words.
    pub title: &'static str,
    /// What was looked at, in one sentence.
    pub why: String,
}

/// What a rule has to see to find nothing.
#[derive(Debug, Clone, Copy)]
enum Sense {
    /// States of containers of the control plane.
    Containers,
    /// Files of static pods.
    Manifests,
    /// Certificates in files.
    Certificates,
    /// Certificates as they are served.
    Served,
    /// The log of a program.
    LogOf(&'static str),
    /// File systems.
    Disks,
    /// Answers of the store.
    Store,
}

/// Which ids need what.
const SENSES: &[(Sense, &[&str])] = &[
    (Sense::Containers, &["A5"]),
    (Sense::Manifests, &["A6", "A7", "A8", "A10", "A12", "A14"]),
    (Sense::LogOf("kube-apiserver"), &["A16", "A18", "C12"]),
    (Sense::LogOf("kubelet"), &["A13", "A17", "C4", "C5", "C11", "E1", "E5"]),
    (Sense::LogOf("etcd"), &["A1", "B1", "B4", "B5", "B6", "B7", "B9", "B10", "B11", "B12", "B13", "B14", "C10"]),
    (Sense::Store, &["B2", "B3"]),
    (Sense::Certificates, &["C1", "C9"]),
    (Sense::Served, &["C2"]),
    (Sense::Disks, &["F1"]),
    (Sense::LogOf("kernel"), &["F4", "F5", "F6", "F7", "F10"]),
];

/// The causes that would explain what was found, and are not it.
pub(crate) fn ruled_out(evidence: &Evidence, found: &[Found]) -> Vec<RuledOut> {
    let failing = found.iter().filter(|each| each.finding.severity == Severity::Failure);
    let failing: BTreeSet<&str> = failing.map(|each| each.rule.id).collect();
    let ids: BTreeSet<&str> = found.iter().map(|each| each.rule.id).collect();
    let candidates = rules().filter(|rule| {
        let mut explained = rule.explains.iter().flat_map(|explains| explains.ids);
        !ids.contains(rule.id) && explained.any(|id| failing.contains(id))
    });
    let out = candidates.filter_map(|rule| {
        let (sense, _) = SENSES.iter().find(|(_, ids)| ids.contains(&rule.id))?;
        Some(RuledOut { id: rule.id, title: rule.title, why: seen(*sense, evidence)? })
    });
    out.collect()
}

/// What was seen of it, or nothing.
fn seen(sense: Sense, evidence: &Evidence) -> Option<String> {
    let counted = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}, and none shows it"));
    match sense {
        Sense::Containers => {
            let pods = evidence.objects("Pod").filter(|(_, _, pod)| {
                let subject = crate::object::subject(pod);
                crate::rules::is_of_the_control_plane(&subject)
                    && crate::object::container_statuses(pod).next().is_some()
            });
            counted(pods.count(), "pods of the control plane were looked at")
        }
        Sense::Manifests => counted(static_pods(evidence), "static pods were read"),
        Sense::Certificates => {
            let files = evidence.certificates().filter(|(_, _, certificate)| certificate.served_by.is_none());
            counted(files.count(), "certificates were read")
        }
        Sense::Served => {
            let served = evidence.certificates().filter(|(_, _, certificate)| certificate.served_by.is_some());
            counted(served.count(), "servers were asked for their certificate")
        }
        Sense::LogOf(program) => {
            // Whatever else Kedge's one process may be there, it is the kubelet.
            let is_its = |source: &LogSource| source.is(program) || (source.is("kedge") && program == "kubelet");
            let lines = evidence.logs().filter(|(_, _, line)| is_its(&line.source));
            counted(lines.count(), &format!("lines of {program} were read"))
        }
        Sense::Disks => {
            let disks = evidence.pick(|fact| matches!(fact, Fact::FileSystem(_)).then_some(()));
            counted(disks.count(), "file systems were looked at")
        }
        Sense::Store => {
            let answers = evidence.documents("etcd").filter(|(_, _, answer)| answer["status"].is_object());
            (answers.count() > 0).then(|| "the store was asked, and says nothing of it".to_owned())
        }
    }
}

/// Static pods of each machine; files that make the same pod, and copies of them in a bundle, count once.
fn static_pods(evidence: &Evidence) -> usize {
    let pods = evidence.manifests().map(|(_, item, manifest)| {
        let who = match &manifest.pod {
            Ok(pod) => crate::object::subject(pod).to_string(),
            Err(_) => manifest.path.clone(),
        };
        (&item.place, who)
    });
    pods.collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixtures::*;

    #[test]
    fn every_id_is_a_rule() {
        for id in SENSES.iter().flat_map(|(_, ids)| *ids) {
            assert!(rules().any(|rule| rule.id == *id), "{id}");
        }
    }

    #[test]
    fn look_alikes_are_ruled_out_by_what_was_seen_only() {
        let call = on("one", Fact::Call { target: "https://a:6443".to_owned(), error: Some("refused".to_owned()) });
        let out = |items: Vec<Item>| {
            let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
            let diagnosis = crate::diagnosis::diagnose(&evidence);
            diagnosis.ruled_out.into_iter().map(|out| (out.id, out.why)).collect::<Vec<_>>()
        };
        assert_eq!(out(vec![call.clone()]), []);
        let seen = out(vec![call, certificate("/pki/a.crt", -1, 364)]);
        let why = "1 certificates were read, and none shows it".to_owned();
        assert_eq!(seen, [("C1", why.clone()), ("C9", why)]);
        assert_eq!(out(vec![certificate("/pki/a.crt", -1, 364)]), []);
    }
}
