//! CSI volumes as block devices: staged once on the node, published for each pod, and shown to it through a symbolic link.
//!
//! Invariant: as for mounts, what is to be undone is on disk before the driver is asked.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kedge_csi::{AccessType, Publish, Stage};

use super::mount::{needs_attachment, pod_record, secrets};
use super::{PLUGIN, attach, record, said};
use crate::csi::source::CsiSource;
use crate::failure::{Operation, VolumeError};
use crate::pod;
use crate::set_up::Volumes;

/// Where the device is.
pub(crate) async fn ensure(volumes: &Volumes, pod: &Pod, source: &CsiSource) -> Result<PathBuf, VolumeError> {
    let fails = |operation: Operation| move |message: String| VolumeError::new(operation, &source.spec_name, message);
    let link = volumes.deps.dirs.device(pod::uid(pod), PLUGIN, &source.spec_name);
    let marker = volumes.deps.dirs.ready_marker(pod::uid(pod), PLUGIN, &source.spec_name);
    if marker.exists() && link.exists() {
        return Ok(link);
    }
    let facts = volumes.csi.objects.get(&source.driver).await.map_err(fails(Operation::SetUpDevice))?;
    let attached = needs_attachment(source, &facts);
    let context = match attached {
        true => attach::wait(volumes, source).await.map_err(fails(Operation::WaitForAttach))?,
        false => HashMap::new(),
    };
    let _lock = volumes.csi.locks.lock(&source.driver, &source.handle).await;
    volumes.check_alive(pod).map_err(fails(Operation::SetUpDevice))?;
    let places = BlockPlaces::new(volumes, pod::uid(pod), &source.spec_name);
    let note = pod_record(volumes, source, attached);
    // The link says which pods use the device, also while it leads nowhere yet.
    record::save(&places.data, &note)
        .and_then(|()| make_link(&places.publish, &link))
        .map_err(|error| fails(Operation::SetUpDevice)(said(format!("failed to save volume info data: {error}"))))?;
    publish(volumes, source, &places, context).await.map_err(fails(Operation::SetUpDevice))?;
    if !link.exists() {
        let message = format!("the driver made no device at {}", places.publish.display());
        return Err(fails(Operation::MapPodDevice)(message));
    }
    crate::dirs::write_marker(&marker).map_err(|error| fails(Operation::MapPodDevice)(error.to_string()))?;
    Ok(link)
}

/// Upstream's places of one block volume.
pub(crate) struct BlockPlaces {
    pub(crate) data: PathBuf,
    pub(crate) staging: PathBuf,
    pub(crate) publish: PathBuf,
}

impl BlockPlaces {
    pub(crate) fn new(volumes: &Volumes, pod_uid: &str, spec_name: &str) -> Self {
        let devices = volumes.deps.dirs.csi_devices();
        Self {
            data: devices.join(spec_name).join("data"),
            staging: devices.join("staging").join(spec_name),
            publish: devices.join("publish").join(spec_name).join(pod_uid),
        }
    }
}

fn make_link(target: &Path, link: &Path) -> std::io::Result<()> {
    if let Some(parent) = link.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match symlink(target, link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

async fn publish(
    volumes: &Volumes,
    source: &CsiSource,
    places: &BlockPlaces,
    context: HashMap<String, String>,
) -> Result<(), String> {
    let registered = volumes.csi.drivers.get(&source.driver);
    let registered =
        registered.map_err(|error| said(format!("blockMapper.SetUpDevice failed to get CSI client: {error}")))?;
    let capabilities = registered.capabilities().await.map_err(|error| error.to_string())?;
    let access_mode = source.access_mode(capabilities);
    let mut staging_path = None;
    if capabilities.stage {
        std::fs::create_dir_all(&places.staging).map_err(|error| error.to_string())?;
        let stage = Stage {
            volume_id: source.handle.clone(),
            staging_path: places.staging.clone(),
            access_type: AccessType::Block,
            access_mode,
            publish_context: context.clone(),
            volume_context: source.attributes.clone(),
            secrets: secrets(volumes, source.stage_secret.as_ref(), "NodeStageSecretRef").await?,
        };
        registered.driver.stage(stage).await.map_err(|error| error.to_string())?;
        staging_path = Some(places.staging.clone());
    }
    if let Some(parent) = places.publish.parent() {
        std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    }
    let publish = Publish {
        volume_id: source.handle.clone(),
        staging_path,
        target_path: places.publish.clone(),
        read_only: source.read_only,
        access_type: AccessType::Block,
        access_mode,
        publish_context: context,
        volume_context: source.attributes.clone(),
        secrets: secrets(volumes, source.publish_secret.as_ref(), "NodePublishSecretRef").await?,
    };
    registered.driver.publish(publish).await.map_err(|error| error.to_string())
}
