//! NodePorts: a host port is one pod's only.

use crate::event::Event;
use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::{HostPort, PodInfo, ports_conflict};

pub(crate) struct NodePorts;

struct Wanted<'a>(&'a [HostPort]);

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        match cycle.pod.host_ports.as_slice() {
            [] => None,
            ports => Some(Box::new(Wanted(ports))),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdd(_) => true,
            Event::AssignedPodDelete(other, _) => {
                pod.host_ports.iter().any(|port| other.host_ports.iter().any(|held| ports_conflict(port, held)))
            }
            _ => false,
        }
    }
}

impl Evaluation for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        match node.used_host_ports().any(|held| self.0.iter().any(|port| ports_conflict(port, held))) {
            true => Verdict::unschedulable("node(s) didn't have free ports for the requested pod ports"),
            false => Verdict::Fits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod};
    use serde_json::json;

    #[test]
    fn a_port_is_taken_once() {
        let with_port = |name: &str, port: i32, ip: &str| {
            pod(json!({"metadata": {"name": name}, "spec": {"containers": [
                {"name": "c", "ports": [{"containerPort": 80, "hostPort": port, "hostIP": ip}]}]}}))
        };
        let nodes = [node(json!({}), vec![with_port("old", 80, "127.0.0.1")])];
        for (port, ip, fits) in
            [(80, "127.0.0.1", false), (80, "", false), (80, "127.0.0.2", true), (81, "127.0.0.1", true)]
        {
            let verdicts = filter(&NodePorts, &with_port("new", port, ip), &nodes);
            assert_eq!(verdicts[0].fits(), fits, "{ip}:{port}");
        }
    }
}
