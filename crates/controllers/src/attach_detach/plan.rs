//! What to attach to a node, what to detach from it, and what to tell it.
//!
//! Pure. Invariant: what is to be detached is no longer reported as attached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::wanted::{Wanted, is_own_name, unique_name};
use crate::pods::name_of;

/// How long a node that is not ready may hold on to a volume.
const FORCE_AFTER: SignedDuration = SignedDuration::from_mins(6);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What the plan of a node depends on.
pub(super) struct Situation<'a> {
    pub(super) node_name: &'a str,
    pub(super) node: Option<&'a Node>,
    pub(super) wanted: &'a [Wanted],
    /// Those of all nodes.
    pub(super) attachments: &'a [Arc<VolumeAttachment>],
    pub(super) unwanted_since: &'a HashMap<String, Timestamp>,
    pub(super) now: Timestamp,
}

/// What to do about a node's volumes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) attach: Vec<Wanted>,
    /// Names of VolumeAttachments to delete.
    pub(super) detach: Vec<String>,
    /// Why, in upstream's words, for those of them that a node may still use.
    pub(super) forced: HashMap<String, &'static str>,
    /// Names of VolumeAttachments that are too many, whether or not they can go already.
    pub(super) unwanted: Vec<String>,
    /// What the node is told, in order.
    pub(super) attached: Vec<String>,
    pub(super) newly_attached: Vec<Wanted>,
    /// Volumes that could not be attached, and why.
    pub(super) failed: Vec<(Wanted, String)>,
    /// Volumes that another node has.
    pub(super) blocked: Vec<(Wanted, String)>,
    /// When a node that does not answer loses its volumes.
    pub(super) again_after: Option<Duration>,
}

/// Whether a node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn volume_of(attachment: &VolumeAttachment) -> &str {
    attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default()
}

fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// What to do about a node's volumes.
pub(super) fn plan_node(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    for wanted in situation.wanted {
        plan_wanted(situation, wanted, &mut plan);
    }
    let here = situation.attachments.iter().filter(|attachment| attachment.spec.node_name == situation.node_name);
    for attachment in here {
        let is_wanted = situation.wanted.iter().any(|wanted| wanted.volume == volume_of(attachment));
        // What people attach by hand, they detach by hand.
        if !is_wanted && is_own_name(name_of(&attachment.metadata)) {
            plan_unwanted(situation, attachment, &mut plan);
        }
    }
    plan.attached.sort();
    plan.attached.dedup();
    plan
}

fn reported(situation: &Situation<'_>) -> Vec<String> {
    let status = situation.node.and_then(|node| node.status.as_ref());
    let shown = status.and_then(|status| status.volumes_attached.as_deref()).unwrap_or_default();
    shown.iter().map(|volume| volume.name.clone()).collect()
}

fn in_use<'a>(situation: &'a Situation<'_>) -> Option<&'a [String]> {
    let status = situation.node?.status.as_ref()?;
    Some(status.volumes_in_use.as_deref().unwrap_or_default())
}

fn plan_wanted(situation: &Situation<'_>, wanted: &Wanted, plan: &mut Plan) {
    let name = wanted.attachment_name(situation.node_name);
    let own = situation.attachments.iter().find(|attachment| name_of(&attachment.metadata) == name);
    match own {
        Some(attachment) if is_attached(attachment) => {
            let unique = wanted.unique_name();
            if !reported(situation).contains(&unique) {
                plan.newly_attached.push(wanted.clone());
            }
            plan.attached.push(unique);
        }
        Some(attachment) => {
            let error = attachment.status.as_ref().and_then(|status| status.attach_error.as_ref());
            if let Some(error) = error {
                plan.failed.push((wanted.clone(), error.message.clone().unwrap_or_default()));
            }
        }
        None => {
            let mut others = situation.attachments.iter().filter(|attachment| volume_of(attachment) == wanted.volume);
            match others.next().filter(|_| wanted.is_exclusive) {
                Some(other) => plan.blocked.push((wanted.clone(), other.spec.node_name.clone())),
                None => plan.attach.push(wanted.clone()),
            }
        }
    }
}

fn plan_unwanted(situation: &Situation<'_>, attachment: &VolumeAttachment, plan: &mut Plan) {
    let name = name_of(&attachment.metadata).to_owned();
    if attachment.metadata.deletion_timestamp.is_some() {
        plan.unwanted.push(name);
        return;
    }
    let used_names = in_use(situation);
    let reported_as = reported_name(situation, attachment);
    let is_used = used_names.is_none_or(|names| reported_as.as_ref().is_some_and(|own| names.contains(own)));
    let since = situation.unwanted_since.get(&name).copied().unwrap_or(situation.now);
    let left = FORCE_AFTER - situation.now.duration_since(since);
    let is_silent = situation.node.is_none_or(|node| !is_ready(node));
    let forced = match (is_silent && left <= SignedDuration::ZERO, is_out_of_service(situation.node)) {
        (true, _) => Some("timeout"),
        (false, true) => Some("out-of-service"),
        (false, false) => None,
    };
    plan.unwanted.push(name.clone());
    plan.forced.extend(forced.map(|reason| (name.clone(), reason)));
    if !is_used || forced.is_some() {
        plan.detach.push(name);
        return;
    }
    if is_attached(attachment) {
        plan.attached.extend(reported_as);
    }
    if is_silent {
        let left = Duration::try_from(left).unwrap_or_default().max(Duration::from_secs(1));
        plan.again_after = Some(plan.again_after.map_or(left, |other| other.min(left)));
    }
}

/// The name by which the node knows an attachment's volume: the volume itself may be gone.
fn reported_name(situation: &Situation<'_>, attachment: &VolumeAttachment) -> Option<String> {
    let prefix = unique_name(&attachment.spec.attacher, "");
    let known = reported(situation).into_iter().chain(in_use(situation).unwrap_or_default().iter().cloned());
    known.into_iter().find(|name| {
        let handle = name.strip_prefix(&prefix).unwrap_or_default();
        let volume = Wanted {
            volume: String::new(),
            driver: attachment.spec.attacher.clone(),
            handle: handle.to_owned(),
            is_exclusive: false,
            pods: Vec::new(),
        };
        !handle.is_empty() && volume.attachment_name(situation.node_name) == name_of(&attachment.metadata)
    })
}

fn is_out_of_service(node: Option<&Node>) -> bool {
    let taints = node.and_then(|node| node.spec.as_ref()).and_then(|spec| spec.taints.as_deref());
    taints.unwrap_or_default().iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wanted() -> Wanted {
        Wanted {
            volume: "pv".to_owned(),
            driver: "d.io".to_owned(),
            handle: "h".to_owned(),
            is_exclusive: true,
            pods: Vec::new(),
        }
    }

    fn attachment(node: &str, status: Value) -> Arc<VolumeAttachment> {
        let value = json!({
            "metadata": {"name": wanted().attachment_name(node)},
            "spec": {"attacher": "d.io", "nodeName": node, "source": {"persistentVolumeName": "pv"}},
            "status": status,
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn node(ready: &str, used: &[&str], attached: &[&str], taint: Option<&str>) -> Node {
        let attached: Vec<Value> = attached.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
        let taints: Vec<Value> = taint.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}], "volumesInUse": used,
                       "volumesAttached": attached},
        }))
        .unwrap()
    }

    const NAME: &str = "kubernetes.io/csi/d.io^h";

    fn plan(node: Option<&Node>, wanted: &[Wanted], attachments: &[Arc<VolumeAttachment>], minutes: i64) -> Plan {
        let now = Timestamp::from_second(100_000).unwrap();
        let since = attachments
            .iter()
            .map(|one| (name_of(&one.metadata).to_owned(), now - SignedDuration::from_mins(minutes)))
            .collect();
        plan_node(&Situation { node_name: "n", node, wanted, attachments, unwanted_since: &since, now })
    }

    #[test]
    fn wanted_volumes_are_attached_and_reported() {
        let idle = node("True", &[], &[], None);
        assert_eq!(plan(Some(&idle), &[wanted()], &[], 0).attach, [wanted()]);
        let waiting = plan(Some(&idle), &[wanted()], &[attachment("n", json!({"attached": false}))], 0);
        assert_eq!(waiting, Plan::default());
        let done = plan(Some(&idle), &[wanted()], &[attachment("n", json!({"attached": true}))], 0);
        assert_eq!((done.attached, done.newly_attached), (vec![NAME.to_owned()], vec![wanted()]));
        let told = node("True", &[], &[NAME], None);
        let later = plan(Some(&told), &[wanted()], &[attachment("n", json!({"attached": true}))], 0);
        assert!(later.newly_attached.is_empty() && later.attached == [NAME]);
        let broken = json!({"attached": false, "attachError": {"message": "no such disk"}});
        let failed = plan(Some(&idle), &[wanted()], &[attachment("n", broken)], 0);
        assert_eq!(failed.failed, [(wanted(), "no such disk".to_owned())]);
    }

    #[test]
    fn an_exclusive_volume_is_on_one_node() {
        let elsewhere = [attachment("m", json!({"attached": true}))];
        let blocked = plan(Some(&node("True", &[], &[], None)), &[wanted()], &elsewhere, 0);
        assert_eq!(blocked.blocked, [(wanted(), "m".to_owned())]);
        assert!(blocked.attach.is_empty());
        let shared = Wanted { is_exclusive: false, ..wanted() };
        assert_eq!(plan(None, std::slice::from_ref(&shared), &elsewhere, 0).attach, [shared]);
    }

    #[test]
    fn what_somebody_attached_by_hand_stays() {
        let mut other = (*attachment("n", json!({"attached": true}))).clone();
        other.metadata.name = Some("by-hand".to_owned());
        assert_eq!(plan(Some(&node("True", &[], &[], None)), &[], &[Arc::new(other)], 0), Plan::default());
    }

    #[test]
    fn a_volume_leaves_when_the_node_has_let_go_of_it() {
        let here = [attachment("n", json!({"attached": true}))];
        let forced = |node: Option<&Node>, minutes: i64| plan(node, &[], &here, minutes).forced.into_values().next();
        let check = |node: Option<&Node>, minutes: i64, detached: bool, reported: bool| {
            let plan = plan(node, &[], &here, minutes);
            assert_eq!(!plan.detach.is_empty(), detached, "{plan:?}");
            assert_eq!(plan.attached == [NAME], reported, "{plan:?}");
            assert_eq!(plan.unwanted.len(), 1);
        };
        check(Some(&node("True", &[], &[NAME], None)), 0, true, false);
        check(Some(&node("True", &[NAME], &[NAME], None)), 0, false, true);
        check(Some(&node("True", &[NAME], &[NAME], None)), 60, false, true);
        check(Some(&node("Unknown", &[NAME], &[NAME], None)), 5, false, true);
        check(Some(&node("Unknown", &[NAME], &[NAME], None)), 6, true, false);
        check(Some(&node("Unknown", &[NAME], &[NAME], Some(OUT_OF_SERVICE))), 0, true, false);
        check(None, 0, false, false);
        check(None, 6, true, false);
        assert_eq!(forced(Some(&node("True", &[], &[NAME], None)), 60), None);
        assert_eq!(forced(Some(&node("Unknown", &[NAME], &[NAME], None)), 5), None);
        assert_eq!(forced(Some(&node("Unknown", &[NAME], &[NAME], Some(OUT_OF_SERVICE))), 6), Some("timeout"));
        assert_eq!(forced(Some(&node("Unknown", &[NAME], &[NAME], Some(OUT_OF_SERVICE))), 0), Some("out-of-service"));
    }
}
