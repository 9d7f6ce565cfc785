//! NodeName: a pod that names its node goes nowhere else.

use crate::event::Event;
use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub(crate) struct NodeName;

struct Wanted<'a>(&'a str);

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let name = cycle.pod.pod().spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())?;
        Some(Box::new(Wanted(name)))
    }

    fn may_help(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let wanted = pod.pod().spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        event.changed_node(|_, _| false).is_some_and(|node| wanted == Some(&node.name))
    }
}

impl Evaluation for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        match node.name == self.0 {
            true => Verdict::Fits,
            false => Verdict::unresolvable("node(s) didn't match the requested node name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{filter, node, pod};
    use serde_json::json;

    #[test]
    fn a_pod_that_names_its_node_goes_nowhere_else() {
        let nodes = ["n1", "n2"].map(|name| node(json!({"metadata": {"name": name}}), vec![]));
        let named = pod(json!({"spec": {"containers": [], "nodeName": "n2"}}));
        let verdicts = filter(&NodeName, &named, &nodes);
        assert_eq!(verdicts[0], Verdict::unresolvable("node(s) didn't match the requested node name"));
        assert!(verdicts[1].fits());
        let anywhere = pod(json!({"spec": {"containers": [], "nodeName": ""}}));
        assert!(filter(&NodeName, &anywhere, &nodes).iter().all(Verdict::fits));
        assert!(NodeName.may_help(&named, &Event::NodeAdd(&nodes[1])));
        assert!(!NodeName.may_help(&named, &Event::NodeAdd(&nodes[0])));
    }
}
