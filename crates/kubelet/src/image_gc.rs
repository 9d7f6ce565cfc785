//! Removal of unused images when the disk fills up.
//!
//! Invariant: an image that a container uses, or that is pinned, is never removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kedge_client::EventType;
use kedge_cri::v1;

use crate::agent::Agent;
use crate::machine;

const EVERY: Duration = Duration::from_secs(300);
/// An image that came only now may be wanted at once.
const MIN_AGE_SECONDS: i64 = 120;

/// An image that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    id: String,
    bytes: u64,
    last_used: Timestamp,
}

/// Looks every five minutes, for ever.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut used: HashMap<String, Timestamp> = HashMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = collect(&agent, &mut used).await {
            tracing::warn!(%error, "failed to look for unused images");
        }
    }
}

async fn collect(agent: &Agent, used: &mut HashMap<String, Timestamp>) -> Result<(), kedge_cri::CriError> {
    let images = agent.runtime.list_images(None).await?;
    let containers = agent.runtime.list_containers(None).await?;
    let now = agent.now();
    let in_use: HashSet<String> = containers.iter().flat_map(names_of).collect();
    used.retain(|id, _| images.iter().any(|image| image.id == *id));
    let mut candidates = Vec::new();
    for image in &images {
        let names = std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
        let busy = names.into_iter().any(|name| in_use.contains(name));
        let last_used = *used.entry(image.id.clone()).or_insert(now);
        if busy {
            used.insert(image.id.clone(), now);
        } else if !image.pinned {
            candidates.push(Candidate { id: image.id.clone(), bytes: image.size, last_used });
        }
    }
    let disk = machine::disk(&image_path(agent).await).unwrap_or_default();
    let gc = agent.config.image_gc;
    let needed = bytes_to_free(disk, gc.high_threshold_percent, gc.low_threshold_percent);
    let mut freed = 0;
    for candidate in plan(candidates, needed, now) {
        let image = v1::ImageSpec { image: candidate.id.clone(), ..Default::default() };
        match agent.runtime.remove_image(image).await {
            Ok(()) => freed += candidate.bytes,
            Err(error) => tracing::warn!(image = candidate.id, %error, "failed to remove an unused image"),
        }
    }
    if needed > freed {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {needed} bytes, but only found {freed} bytes eligible to free."
        );
        agent.events.node(EventType::Warning, "FreeDiskSpaceFailed", message);
    }
    Ok(())
}

fn names_of(container: &v1::Container) -> Vec<String> {
    let named = container.image.as_ref().map(|image| image.image.clone());
    named
        .into_iter()
        .chain([container.image_ref.clone(), container.image_id.clone()])
        .filter(|name| !name.is_empty())
        .collect()
}

async fn image_path(agent: &Agent) -> std::path::PathBuf {
    let info = agent.runtime.image_fs_info().await.ok();
    let usage = info.and_then(|info| info.image_filesystems.into_iter().next());
    usage.and_then(|usage| usage.fs_id).map_or_else(|| agent.config.root_dir.clone(), |id| id.mountpoint.into())
}

/// How much has to go, so that use falls from above the high to the low threshold.
fn bytes_to_free(disk: machine::Disk, high_percent: u8, low_percent: u8) -> u64 {
    if disk.capacity == 0 {
        return 0;
    }
    let used_percent = 100 - (disk.available * 100 / disk.capacity).min(100);
    if used_percent < u64::from(high_percent) {
        return 0;
    }
    (disk.capacity / 100 * (100 - u64::from(low_percent))).saturating_sub(disk.available)
}

/// The images that go: those that were not used for the longest time first.
fn plan(mut candidates: Vec<Candidate>, needed: u64, now: Timestamp) -> Vec<Candidate> {
    candidates.sort_by(|a, b| a.last_used.cmp(&b.last_used).then_with(|| a.id.cmp(&b.id)));
    let mut chosen = Vec::new();
    let mut bytes = 0;
    for candidate in candidates {
        if bytes >= needed {
            break;
        }
        if now.as_second() - candidate.last_used.as_second() < MIN_AGE_SECONDS {
            continue;
        }
        bytes += candidate.bytes;
        chosen.push(candidate);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_images_go_until_it_is_enough() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let image = |id: &str, bytes: u64, used: i64| Candidate { id: id.to_owned(), bytes, last_used: at(used) };
        let all = || vec![image("new", 10, 950), image("old", 10, 1), image("older", 10, 0)];
        let ids = |needed: u64| plan(all(), needed, at(1000)).into_iter().map(|image| image.id).collect::<Vec<_>>();
        assert_eq!(ids(0), Vec::<String>::new());
        assert_eq!(ids(10), ["older"]);
        assert_eq!(ids(100), ["older", "old"], "a new image stays");
    }

    #[test]
    fn thresholds() {
        for (available, expected) in [(50, 0), (16, 0), (15, 5), (0, 20)] {
            let disk = machine::Disk { capacity: 100, available, ..machine::Disk::default() };
            assert_eq!(bytes_to_free(disk, 85, 80), expected, "{available}");
        }
    }
}
