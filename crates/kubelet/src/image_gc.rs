//! Removal of unused images: when the disk fills up, when they were not used for long, and when eviction asks for it.
//!
//! Invariant: an image that a container or the sandboxes use, that is pinned, or that came only now, is never removed.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kedge_client::EventType;
use kedge_cri::{CriError, v1};

use crate::agent::Agent;
use crate::config::ImageGc;
use crate::image_volumes;
use crate::machine;

const EVERY: Duration = Duration::from_secs(300);

/// What is known of the node's images, by id.
pub(crate) type ImageRecords = HashMap<String, ImageRecord>;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageRecord {
    /// The beginning of time where it was there before the node agent.
    first_seen: Timestamp,
    last_used: Timestamp,
    bytes: u64,
    /// Used now, or pinned.
    is_kept: bool,
}

/// Why images could not be collected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageGcError {
    #[error("the runtime does not answer")]
    Runtime(#[from] CriError),
    #[error("invalid capacity 0 on image filesystem")]
    NoCapacity,
    #[error(
        "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
    )]
    TooLittle { wanted: u64, freed: u64 },
}

/// Looks every five minutes, for ever.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut failed = false;
    if let Err(error) = detect(&agent, Timestamp::UNIX_EPOCH).await {
        tracing::warn!(%error, "failed to look for unused images");
    }
    loop {
        tokio::time::sleep(EVERY).await;
        let result = collect(&agent).await;
        if let Err(error) = &result {
            tracing::warn!(error = error as &dyn std::error::Error, "image garbage collection failed");
            // Once may be the start; twice is worth an event.
            if failed {
                agent.events.node(EventType::Warning, "ImageGCFailed", error.to_string());
            }
        }
        failed = result.is_err();
    }
}

/// Removes every image that nothing uses.
pub(crate) async fn remove_all_unused(agent: &Agent) -> Result<u64, ImageGcError> {
    detect(agent, agent.now()).await?;
    Ok(free(agent, u64::MAX).await)
}

/// One round.
async fn collect(agent: &Agent) -> Result<(), ImageGcError> {
    detect(agent, agent.now()).await?;
    let gc = agent.config.image_gc;
    if gc.maximum_age > Duration::ZERO {
        let old = plan_old(&*agent.image_records.lock().await, gc, agent.now());
        remove(agent, old).await;
    }
    let disk = machine::disk(&image_path(agent).await).unwrap_or_default();
    if disk.capacity == 0 {
        let error = ImageGcError::NoCapacity;
        agent.events.node(EventType::Warning, "InvalidDiskCapacity", error.to_string());
        return Err(error);
    }
    let wanted = bytes_to_free(disk, gc);
    if wanted == 0 {
        return Ok(());
    }
    tracing::info!(wanted, "the image file system is too full; removing unused images");
    let freed = free(agent, wanted).await;
    if freed >= wanted {
        return Ok(());
    }
    let error = ImageGcError::TooLittle { wanted, freed };
    agent.events.node(EventType::Warning, "FreeDiskSpaceFailed", error.to_string());
    Err(error)
}

async fn free(agent: &Agent, wanted: u64) -> u64 {
    let chosen = plan(&*agent.image_records.lock().await, wanted, agent.config.image_gc, agent.now());
    remove(agent, chosen).await
}

/// Removes images; how many bytes they had.
async fn remove(agent: &Agent, ids: Vec<String>) -> u64 {
    let mut freed = 0;
    for id in ids {
        let image = v1::ImageSpec { image: id.clone(), ..Default::default() };
        match agent.runtime.remove_image(image).await {
            Ok(()) => {
                let record = agent.image_records.lock().await.remove(&id);
                freed += record.map_or(0, |record| record.bytes);
                tracing::info!(image = id, "removed an unused image");
            }
            Err(error) => tracing::warn!(image = id, %error, "failed to remove an unused image"),
        }
    }
    freed
}

/// Takes what the runtime has into the records; what is new there was first seen then.
async fn detect(agent: &Agent, first_seen: Timestamp) -> Result<(), CriError> {
    let images = agent.runtime.list_images(None).await?;
    let containers = agent.runtime.list_containers(None).await?;
    let in_use: HashSet<String> =
        containers.iter().flat_map(names_of).chain(agent.config.sandbox_image.clone()).collect();
    let in_volumes = image_volumes::in_use(agent);
    let mut records = agent.image_records.lock().await;
    let now = agent.now();
    records.retain(|id, _| images.iter().any(|image| image.id == *id));
    for image in images {
        let names = std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
        let is_used = names.into_iter().any(|name| in_use.contains(name) || in_volumes.contains(name));
        let new = ImageRecord { first_seen, last_used: Timestamp::UNIX_EPOCH, bytes: image.size, is_kept: false };
        let record = records.entry(image.id).or_insert(new);
        record.bytes = image.size;
        record.is_kept = is_used || image.pinned;
        if is_used {
            record.last_used = now;
        }
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

async fn image_path(agent: &Agent) -> PathBuf {
    let info = agent.runtime.image_fs_info().await.ok();
    let usage = info.and_then(|info| info.image_filesystems.into_iter().next());
    usage.and_then(|usage| usage.fs_id).map_or_else(|| agent.config.root_dir.clone(), |id| id.mountpoint.into())
}

/// How much has to go, so that use falls from above the high to the low threshold.
fn bytes_to_free(disk: machine::Disk, gc: ImageGc) -> u64 {
    let percent = |amount: u64| u128::from(amount) * 100 / u128::from(disk.capacity.max(1));
    let used = 100 - percent(disk.available.min(disk.capacity));
    // Upstream's way of switching it off.
    let is_off = gc.high_threshold_percent >= 100;
    if disk.capacity == 0 || is_off || used < u128::from(gc.high_threshold_percent) {
        return 0;
    }
    let free = u128::from(disk.capacity) * u128::from(100 - gc.low_threshold_percent) / 100;
    u64::try_from(free).unwrap_or(u64::MAX).saturating_sub(disk.available)
}

/// The images that go: those that were not used for the longest time first.
fn plan(records: &ImageRecords, wanted: u64, gc: ImageGc, now: Timestamp) -> Vec<String> {
    let mut candidates: Vec<(&String, &ImageRecord)> =
        records.iter().filter(|(_, record)| !record.is_kept && age(record.first_seen, now) >= gc.minimum_age).collect();
    candidates.sort_by_key(|(id, record)| (record.last_used, record.first_seen, *id));
    let mut chosen = Vec::new();
    let mut bytes: u64 = 0;
    for (id, record) in candidates {
        if bytes >= wanted {
            break;
        }
        bytes = bytes.saturating_add(record.bytes);
        chosen.push(id.clone());
    }
    chosen
}

/// The images that were not used for too long.
fn plan_old(records: &ImageRecords, gc: ImageGc, now: Timestamp) -> Vec<String> {
    let is_old = |record: &ImageRecord| {
        let used = record.last_used.max(record.first_seen);
        // How long an image that was there before the node agent has been idle is not known.
        used != Timestamp::UNIX_EPOCH && age(used, now) > gc.maximum_age
    };
    let old = records.iter().filter(|(_, record)| !record.is_kept && is_old(record));
    let mut ids: Vec<String> = old.map(|(id, _)| id.clone()).collect();
    ids.sort();
    ids
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since).max(SignedDuration::ZERO)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn records(entries: &[(&str, i64, i64, bool)]) -> ImageRecords {
        let record = |first_seen: i64, last_used: i64, is_kept: bool| ImageRecord {
            first_seen: at(first_seen),
            last_used: at(last_used),
            bytes: 10,
            is_kept,
        };
        entries.iter().map(|(id, seen, used, kept)| ((*id).to_owned(), record(*seen, *used, *kept))).collect()
    }

    #[test]
    fn the_longest_unused_images_go_until_it_is_enough() {
        let all =
            records(&[("new", 950, 0, false), ("old", 0, 100, false), ("older", 0, 50, false), ("kept", 0, 0, true)]);
        let ids = |wanted: u64| plan(&all, wanted, ImageGc::default(), at(1000));
        assert_eq!(ids(0), Vec::<String>::new());
        assert_eq!(ids(10), ["older"]);
        assert_eq!(ids(u64::MAX), ["older", "old"], "a new image stays, and one that is used");
    }

    #[test]
    fn images_that_nobody_used_for_long_go_whatever_the_disk_says() {
        let all = records(&[
            ("before", 0, 0, false),
            ("fresh", 950, 0, false),
            ("idle", 100, 0, false),
            ("used", 100, 990, false),
            ("kept", 100, 0, true),
        ]);
        let gc = ImageGc { maximum_age: Duration::from_secs(500), ..ImageGc::default() };
        assert_eq!(plan_old(&all, gc, at(1000)), ["idle"]);
    }

    #[test]
    fn thresholds() {
        for (available, expected) in [(50, 0), (16, 0), (15, 5), (0, 20)] {
            let disk = machine::Disk { capacity: 100, available, ..machine::Disk::default() };
            assert_eq!(bytes_to_free(disk, ImageGc::default()), expected, "{available}");
            assert_eq!(bytes_to_free(disk, ImageGc { high_threshold_percent: 100, ..ImageGc::default() }), 0);
        }
    }
}
