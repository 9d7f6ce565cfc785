//! NodeName: a pod that names its node goes nowhere else.

use crate::framework::{Cycle, Evaluation, Plugin, Verdict};
use crate::node_info::NodeInfo;

pub(crate) struct NodeName;

struct Wanted<'a>(&'a str);

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let name = cycle.pod.pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())?;
        Some(Box::new(Wanted(name)))
    }
}

impl Evaluation for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        match node.name == self.0 {
            true => Verdict::Fits,
            false => Verdict::Unresolvable("node(s) didn't match the requested node name".to_owned()),
        }
    }
}
