//! Volumes that are images: pulled with the containers that see them, and mounted by the runtime or, where that is a
//! containerd too old for it, here.
//!
//! Each image of a pod's volume has a directory below the pod's own, named by the image, which also says after a restart
//! what is in use. Invariant: a view of an image lives as long as the directory of its pod, and no longer than it takes
//! to notice.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ImageVolumeSource, Pod};
use kedge_cri::v1;
use kedge_volumes::{ImageSource, mount_image};

use crate::agent::Agent;
use crate::images::{ImageFailure, ImageRequest, RETRY, ensure_image, failure};
use crate::spec;
use crate::start::StartInput;

const PLUGIN: &str = "kubernetes.io/image";
/// On a view: the uid of the pod that it belongs to.
const LABEL: &str = "kedge.io/image-volume-of";
/// The first containerd that mounts images, and parts of them, for its containers.
const CONTAINERD_THAT_CAN: (u32, u32) = (2, 2);

/// The images that a container sees, by the volume's name.
pub(crate) async fn sources(
    agent: &Agent,
    input: &StartInput<'_>,
) -> Result<BTreeMap<String, ImageSource>, ImageFailure> {
    let mut sources = BTreeMap::new();
    for mount in input.container.volume_mounts.iter().flatten() {
        let Some(volume) = image_of(input.pod, &mount.name) else { continue };
        if sources.contains_key(&mount.name) {
            continue;
        }
        let source = one(agent, input, &mount.name, volume).await;
        agent.metrics.image_volume(source.is_ok());
        sources.insert(mount.name.clone(), source?);
    }
    Ok(sources)
}

async fn one(
    agent: &Agent,
    input: &StartInput<'_>,
    name: &str,
    volume: &ImageVolumeSource,
) -> Result<ImageSource, ImageFailure> {
    let wanted = volume.reference.as_deref().unwrap_or_default();
    let request = ImageRequest {
        pod: input.pod,
        image: wanted,
        policy: volume.pull_policy.as_deref().unwrap_or("IfNotPresent"),
        container: None,
        secrets: input.secrets,
        sandbox: input.sandbox,
    };
    let image = ensure_image(agent, &request).await?;
    let spec = v1::ImageSpec {
        image: image.reference,
        user_specified_image: wanted.to_owned(),
        annotations: input.sandbox.annotations.clone(),
        ..Default::default()
    };
    let made = source(agent, spec::uid(input.pod), name, spec).await;
    made.map_err(|error| {
        let message = format!("failed to mount image volume {name:?} ({wanted}): {error}");
        failure("CreateContainerError", message, RETRY)
    })
}

async fn source(agent: &Agent, uid: &str, volume: &str, image: v1::ImageSpec) -> Result<ImageSource, String> {
    let directory = directory(agent, uid, volume, &image.image);
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let version = agent.runtime.version().await.map_err(|error| error.to_string())?;
    if mounts_images(&version.runtime_name, &version.runtime_version) {
        return Ok(ImageSource::Runtime(image));
    }
    let text = |error: kedge_cri::CriError| error.to_string();
    let snapshotter = agent.runtime.snapshotter().await.map_err(text)?;
    let snapshotter = snapshotter.ok_or("the runtime does not say how it unpacks images")?;
    let chain = agent.runtime.image_chain(image.clone()).await.map_err(text)?;
    let chain = chain.ok_or("the runtime does not say which layers the image has")?;
    let key = format!("kedge-image-volume-{uid}-{volume}-{}", bare(&image.image));
    let mounts = agent.runtime.view(&snapshotter, &key, &chain, (LABEL, uid)).await.map_err(text)?;
    let target = directory.clone();
    let mounted = tokio::task::spawn_blocking(move || mount_image(&target, &mounts)).await;
    mounted.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(ImageSource::Directory(directory))
}

/// Whether the runtime does it.
fn mounts_images(name: &str, version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+', '~']).map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0));
    name != "containerd" || version >= CONTAINERD_THAT_CAN
}

fn image_of<'a>(pod: &'a Pod, volume: &str) -> Option<&'a ImageVolumeSource> {
    let volumes = spec::pod_spec(pod).volumes.as_deref().unwrap_or_default();
    volumes.iter().find(|known| known.name == volume)?.image.as_ref()
}

fn bare(image_id: &str) -> &str {
    image_id.strip_prefix("sha256:").unwrap_or(image_id)
}

fn directory(agent: &Agent, uid: &str, volume: &str, image_id: &str) -> PathBuf {
    agent.volumes.dirs().volume(uid, PLUGIN, volume).join(bare(image_id))
}

/// Removes the views of a pod whose volumes are down; true where nothing is left of them.
pub(crate) async fn release(agent: &Agent, pod: &Pod) -> bool {
    let has = spec::pod_spec(pod).volumes.iter().flatten().any(|volume| volume.image.is_some());
    !has || remove_views(agent, |uid| uid == spec::uid(pod)).await
}

/// Removes the views of pods that have no directory any more.
pub(crate) async fn sweep(agent: &Agent) -> bool {
    remove_views(agent, |uid| !agent.volumes.dirs().pod(uid).exists()).await
}

async fn remove_views(agent: &Agent, of: impl Fn(&str) -> bool) -> bool {
    let work = async {
        let version = agent.runtime.version().await?;
        if mounts_images(&version.runtime_name, &version.runtime_version) {
            return Ok(());
        }
        let Some(snapshotter) = agent.runtime.snapshotter().await? else { return Ok(()) };
        for (key, uid) in agent.runtime.views(&snapshotter, LABEL).await? {
            if of(&uid) {
                agent.runtime.remove_view(&snapshotter, &key).await?;
            }
        }
        Ok::<(), kedge_cri::CriError>(())
    };
    work.await.inspect_err(|error| tracing::warn!(%error, "failed to remove views of images")).is_ok()
}

/// The images that volumes of pods on this node use, each with and without its algorithm.
pub(crate) fn in_use(agent: &Agent) -> HashSet<String> {
    let dirs = agent.volumes.dirs();
    let uids = dirs.pod_uids();
    let volumes = uids.iter().flat_map(|uid| entries(&dirs.volume(uid, PLUGIN, "")));
    let images = volumes.flat_map(|volume| entries(&volume));
    let names = images.filter_map(|image| Some(image.file_name()?.to_string_lossy().into_owned()));
    names.flat_map(|name| [format!("sha256:{name}"), name]).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_that_mount_images() {
        for (name, version, can) in [
            ("containerd", "1.6.20~ds1", false),
            ("containerd", "v2.1.4", false),
            ("containerd", "2.2.0", true),
            ("containerd", "v3.0.0-rc.1", true),
            ("containerd", "unknown", false),
            ("cri-o", "1.36.0", true),
        ] {
            assert_eq!(mounts_images(name, version), can, "{name} {version}");
        }
    }
}
