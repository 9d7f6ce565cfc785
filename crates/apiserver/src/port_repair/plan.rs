//! What is wrong between Services and the records of their node ports, and what is said about it in upstream's words.
//!
//! Pure. Invariant: what the repair leaves behind is right, but for ports that only people can change.

use std::collections::{BTreeMap, BTreeSet};

use kedge_meta::ObjectKey;

use crate::own_request::Finding;

/// A Service with its node ports.
pub(super) struct Holder {
    pub(super) key: ObjectKey,
    pub(super) ports: BTreeSet<u16>,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something is to be said of the Service with this index; what it is counted as comes first.
    Tell(usize, &'static str, Finding),
    /// A port is recorded for the Service with this index.
    Write(usize, u16, Finding),
    /// Nobody has a port that is recorded.
    Free(u16),
}

/// Compares what Services name with what is recorded; `range` is the first and the last port that are handed out.
pub(super) fn plan(services: &[Holder], recorded: &BTreeMap<u16, String>, range: (u16, u16)) -> Vec<Step> {
    let mut by_port: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        for port in &service.ports {
            by_port.entry(*port).or_default().push(index);
        }
    }
    let mut steps = Vec::new();
    for (port, holders) in &by_port {
        let owner = recorded.get(port);
        let is_owner = |index: &usize| owner.is_some_and(|owner| *owner == services[*index].key.to_string());
        let known = holders.iter().copied().find(is_owner);
        let (first, last) = range;
        if !(first..=last).contains(port) {
            let text = format!("Port {port} is not within the port range {first}-{last}; please recreate service");
            let tell = |index: &usize| Step::Tell(*index, "outOfRange", said("PortOutOfRange", text.clone()));
            steps.extend(holders.iter().map(tell));
            continue;
        }
        let rightful = known.unwrap_or(holders[0]);
        if known.is_none() {
            let text = format!("Port {port} is not allocated; repairing");
            steps.push(Step::Write(rightful, *port, said("PortNotAllocated", text)));
        }
        let text = format!("Port {port} was assigned to multiple services; please recreate service");
        let others = holders.iter().filter(|index| **index != rightful);
        steps.extend(others.map(|index| Step::Tell(*index, "duplicate", said("PortAlreadyAllocated", text.clone()))));
    }
    steps.extend(recorded.keys().filter(|port| !by_port.contains_key(port)).map(|port| Step::Free(*port)));
    steps
}

fn said(reason: &'static str, text: String) -> Finding {
    (reason, "PortAllocation", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(services: &[(&str, &[u16])], recorded: &[(u16, &str)], expected: &[&str]) {
        let holder = |(name, ports): &(&str, &[u16])| Holder {
            key: ObjectKey::new("d", *name),
            ports: ports.iter().copied().collect(),
        };
        let services: Vec<Holder> = services.iter().map(holder).collect();
        let recorded = recorded.iter().map(|(port, owner)| (*port, (*owner).to_owned())).collect();
        let show = |step: &Step| match step {
            Step::Tell(index, error, (reason, action, text)) => {
                format!("{} {error} {reason} {action} {text}", services[*index].key.name)
            }
            Step::Write(index, port, (reason, action, text)) => {
                format!("{} gets {port} {reason} {action} {text}", services[*index].key.name)
            }
            Step::Free(port) => format!("free {port}"),
        };
        let steps: Vec<String> = plan(&services, &recorded, (30000, 30010)).iter().map(show).collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn every_port_has_one_service_and_one_record() {
        check(&[("a", &[30001]), ("b", &[30002, 30003])], &[(30001, "d/a"), (30002, "d/b"), (30003, "d/b")], &[]);
        check(&[("a", &[30001])], &[(30001, "d/a"), (30002, "d/a"), (30003, "d/gone")], &["free 30002", "free 30003"]);
        let repairing = "a gets 30001 PortNotAllocated PortAllocation Port 30001 is not allocated; repairing";
        check(&[("a", &[30001])], &[], &[repairing]);
        check(&[("a", &[30001])], &[(30001, "d/gone")], &[repairing]);
    }

    #[test]
    fn what_only_people_can_change_is_told() {
        let twice = "PortAllocation Port 30001 was assigned to multiple services; please recreate service";
        let of = |name: &str| format!("{name} duplicate PortAlreadyAllocated {twice}");
        let both = [("a", &[30001_u16][..]), ("b", &[30001])];
        check(&both, &[(30001, "d/b")], &[&of("a")]);
        let repairing = "a gets 30001 PortNotAllocated PortAllocation Port 30001 is not allocated; repairing";
        check(&both, &[], &[repairing, &of("b")]);
        let text = "Port 8080 is not within the port range 30000-30010; please recreate service";
        check(&[("a", &[8080])], &[(8080, "d/a")], &[&format!("a outOfRange PortOutOfRange PortAllocation {text}")]);
    }
}
