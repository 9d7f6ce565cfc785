//! ImageLocality: nodes that have the pod's images already are liked more, the more the larger the images are.

use crate::event::Event;
use crate::framework::{Cycle, Evaluation, MAX_SCORE, Plugin};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

const LEAST: i64 = 23 * 1024 * 1024;
const MOST_EACH: i64 = 1000 * 1024 * 1024;

pub(crate) struct ImageLocality;

struct Wanted {
    /// The pod's images that lie on nodes, each with on how many.
    images: Vec<(String, i64)>,
    /// The pod's containers.
    containers: i64,
    nodes: i64,
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn prepare<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
        let images = image_names(cycle.pod);
        let containers = i64::try_from(images.len()).ok()?.max(1);
        let spread = |image: String| {
            let having = cycle.surroundings.image_spread.get(&image)?;
            Some((image, i64::try_from(*having).ok()?))
        };
        let images: Vec<(String, i64)> = images.into_iter().filter_map(spread).collect();
        let nodes = i64::try_from(cycle.nodes.len()).ok()?.max(1);
        (!images.is_empty()).then(|| Box::new(Wanted { images, containers, nodes }) as Box<dyn Evaluation>)
    }

    fn may_help(&self, _pod: &PodInfo, _event: &Event<'_>) -> bool {
        false
    }
}

/// The pod's images as nodes name them, one for each container.
pub(crate) fn image_names(pod: &PodInfo) -> Vec<String> {
    let Some(spec) = &pod.pod().spec else { return Vec::new() };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.filter_map(|container| container.image.as_deref()).map(with_tag).collect()
}

fn with_tag(image: &str) -> String {
    let tagged = image.rsplit('/').next().is_some_and(|last| last.contains(':') || last.contains('@'));
    if tagged { image.to_owned() } else { format!("{image}:latest") }
}

impl Evaluation for Wanted {
    fn score(&self, node: &NodeInfo) -> Option<i64> {
        // An image that few nodes have counts less, so that not all pods crowd on those.
        let weighted = |(image, having): &(String, i64)| Some(node.image_sizes.get(image)? * having / self.nodes);
        let sum: i64 = self.images.iter().filter_map(weighted).sum();
        let most = MOST_EACH * self.containers;
        Some(MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Surroundings;
    use crate::plugins::test_world::{node, pod, score_in};
    use serde_json::json;

    #[test]
    fn large_images_that_many_nodes_have_count_most() {
        let with = |images: &[(&str, i64)]| {
            let images: Vec<_> =
                images.iter().map(|(name, size)| json!({"names": [name], "sizeBytes": size * 1024 * 1024})).collect();
            node(json!({"status": {"images": images}}), vec![])
        };
        let nodes = [with(&[("big:latest", 1000), ("small:1", 20)]), with(&[("big:latest", 1000)]), with(&[])];
        let spread = [("big:latest".to_owned(), 2), ("small:1".to_owned(), 1)].into();
        let world = Surroundings { image_spread: spread, ..Surroundings::default() };
        let asking = |images: &[&str]| {
            let containers: Vec<_> = images.iter().map(|image| json!({"name": "c", "image": image})).collect();
            pod(json!({"spec": {"containers": containers}}))
        };
        let check = |images: &[&str], expected: &[i64]| {
            assert_eq!(score_in(&ImageLocality, &asking(images), &nodes, &world), expected, "{images:?}");
        };
        check(&["big"], &[65, 65, 0]);
        check(&["small:1"], &[0, 0, 0]);
        check(&["big", "nowhere"], &[32, 32, 0]);
        check(&["nowhere"], &[]);
    }
}
