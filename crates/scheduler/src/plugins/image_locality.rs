//! ImageLocality: nodes that have the pod's images already are liked more, the more the larger the images are.

use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin};
use crate::node_info::NodeInfo;

const LEAST: i64 = 23 * 1024 * 1024;
const MOST_EACH: i64 = 1000 * 1024 * 1024;

pub(crate) struct ImageLocality;

struct Wanted<'a> {
    images: Vec<String>,
    nodes: &'a [&'a NodeInfo],
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn prepare<'a>(&self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let spec = cycle.pod.pod.spec.as_ref()?;
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let images = containers.filter_map(|container| container.image.as_deref()).map(with_tag).collect();
        Some(Box::new(Wanted { images, nodes: cycle.nodes }))
    }
}

fn with_tag(image: &str) -> String {
    let tagged = image.rsplit('/').next().is_some_and(|last| last.contains(':') || last.contains('@'));
    if tagged { image.to_owned() } else { format!("{image}:latest") }
}

impl Evaluation for Wanted<'_> {
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        let total = i64::try_from(self.nodes.len()).ok()?.max(1);
        // An image that few nodes have counts less, so that not all pods crowd on those.
        let weighted = |image: &String| {
            let size = node.image_sizes.get(image).copied()?;
            let having = self.nodes.iter().filter(|node| node.image_sizes.contains_key(image)).count();
            Some(size * i64::try_from(having).ok()? / total)
        };
        let sum: i64 = self.images.iter().filter_map(weighted).sum();
        let most = MOST_EACH * i64::try_from(self.images.len()).ok()?.max(1);
        Some(MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST))
    }
}
