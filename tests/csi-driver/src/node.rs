//! The node service: volumes are staged and published by bind mounts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kedge_csi::v1;
use kedge_csi::v1::volume_capability::AccessType;
use nix::mount::{MntFlags, MsFlags};
use tonic::Status;

use crate::{Call, Shared, place};

/// What volumes are said to have left, to have in all, and to use.
const VOLUME_BYTES: (i64, i64, i64) = (3000, 5000, 2000);
const VOLUME_INODES: (i64, i64, i64) = (30, 50, 20);

type Answer<T> = Result<T, Status>;

pub(crate) async fn info(shared: &Shared) -> Answer<v1::NodeGetInfoResponse> {
    let segments: HashMap<String, String> = shared.options.topology.iter().cloned().collect();
    Ok(v1::NodeGetInfoResponse {
        node_id: shared.options.node_id.clone(),
        max_volumes_per_node: shared.options.max_volumes,
        accessible_topology: (!segments.is_empty()).then_some(v1::Topology { segments }),
    })
}

pub(crate) async fn capabilities() -> Answer<v1::NodeGetCapabilitiesResponse> {
    let capability = |number: i32| v1::NodeServiceCapability { rpc: Some(v1::NodeServiceRpc { r#type: number }) };
    Ok(v1::NodeGetCapabilitiesResponse { capabilities: [1, 2, 3].map(capability).into() })
}

pub(crate) async fn stage(shared: &Shared, request: v1::NodeStageVolumeRequest) -> Answer<v1::NodeStageVolumeResponse> {
    let target = Path::new(&request.staging_target_path);
    let how = how(request.volume_capability.as_ref(), false);
    note(shared, "NodeStageVolume", &request.volume_id, target, |call| {
        call.context = sorted(&request.volume_context);
        call.publish_context = sorted(&request.publish_context);
        call.secrets = sorted(&request.secrets);
        call.how = how;
    });
    maybe_hang(shared).await;
    if !target.is_dir() {
        return Err(Status::invalid_argument("the staging path is not a directory"));
    }
    if !place::exists(&shared.state, &request.volume_id) {
        return Err(Status::not_found(format!("there is no volume {:?}", request.volume_id)));
    }
    if is_block(request.volume_capability.as_ref()) {
        place::loop_device(&shared.state, &request.volume_id).map_err(Status::internal)?;
    } else if !place::is_mounted(target) {
        bind(&place::directory(&shared.state, &request.volume_id), target, false)?;
    }
    Ok(v1::NodeStageVolumeResponse {})
}

pub(crate) async fn unstage(
    shared: &Shared,
    request: v1::NodeUnstageVolumeRequest,
) -> Answer<v1::NodeUnstageVolumeResponse> {
    let target = Path::new(&request.staging_target_path);
    note(shared, "NodeUnstageVolume", &request.volume_id, target, |_| {});
    maybe_hang(shared).await;
    unmount(target)?;
    place::release_loop_device(&shared.state, &request.volume_id).map_err(Status::internal)?;
    Ok(v1::NodeUnstageVolumeResponse {})
}

pub(crate) async fn publish(
    shared: &Shared,
    request: v1::NodePublishVolumeRequest,
) -> Answer<v1::NodePublishVolumeResponse> {
    let target = Path::new(&request.target_path);
    let how = how(request.volume_capability.as_ref(), request.readonly);
    note(shared, "NodePublishVolume", &request.volume_id, target, |call| {
        call.context = sorted(&request.volume_context);
        call.publish_context = sorted(&request.publish_context);
        call.secrets = sorted(&request.secrets);
        call.how = how;
    });
    maybe_hang(shared).await;
    if !target.parent().is_some_and(Path::is_dir) {
        return Err(Status::invalid_argument("the parent of the target path is not a directory"));
    }
    if place::is_mounted(target) {
        return Ok(v1::NodePublishVolumeResponse {});
    }
    let internal = |error: std::io::Error| Status::internal(error.to_string());
    if is_block(request.volume_capability.as_ref()) {
        let device = place::loop_device(&shared.state, &request.volume_id).map_err(Status::internal)?;
        std::fs::File::create(target).map_err(internal)?;
        bind(&device, target, false)?;
        return Ok(v1::NodePublishVolumeResponse {});
    }
    let source = match request.volume_context.get("csi.storage.k8s.io/ephemeral").map(String::as_str) {
        Some("true") => {
            let own = place::directory(&shared.state, &request.volume_id);
            std::fs::create_dir_all(&own).map_err(internal)?;
            own
        }
        _ if place::is_mounted(Path::new(&request.staging_target_path)) => request.staging_target_path.clone().into(),
        _ => return Err(Status::failed_precondition("the volume is not staged")),
    };
    std::fs::create_dir_all(target).map_err(internal)?;
    bind(&source, target, request.readonly)?;
    Ok(v1::NodePublishVolumeResponse {})
}

pub(crate) async fn unpublish(
    shared: &Shared,
    request: v1::NodeUnpublishVolumeRequest,
) -> Answer<v1::NodeUnpublishVolumeResponse> {
    let target = Path::new(&request.target_path);
    note(shared, "NodeUnpublishVolume", &request.volume_id, target, |_| {});
    maybe_hang(shared).await;
    unmount(target)?;
    let removed = match target.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir(target),
        Ok(_) => std::fs::remove_file(target),
        Err(_) => Ok(()),
    };
    removed.map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::NodeUnpublishVolumeResponse {})
}

pub(crate) async fn expand(
    shared: &Shared,
    request: v1::NodeExpandVolumeRequest,
) -> Answer<v1::NodeExpandVolumeResponse> {
    let target = Path::new(&request.volume_path);
    let bytes = request.capacity_range.as_ref().map(|range| range.required_bytes).unwrap_or_default();
    note(shared, "NodeExpandVolume", &request.volume_id, target, |call| call.how = bytes.to_string());
    Ok(v1::NodeExpandVolumeResponse { capacity_bytes: bytes })
}

/// Sizes of its own, so that they can be told from those of the file system.
pub(crate) async fn stats(
    shared: &Shared,
    request: v1::NodeGetVolumeStatsRequest,
) -> Answer<v1::NodeGetVolumeStatsResponse> {
    let path = Path::new(&request.volume_path);
    note(shared, "NodeGetVolumeStats", &request.volume_id, path, |_| {});
    maybe_hang(shared).await;
    if !path.exists() {
        return Err(Status::not_found(format!("nothing is published at {}", path.display())));
    }
    let usage = |(available, total, used), unit| v1::VolumeUsage { available, total, used, unit };
    let usage = vec![usage(VOLUME_BYTES, 1), usage(VOLUME_INODES, 2)];
    Ok(v1::NodeGetVolumeStatsResponse { usage, volume_condition: None })
}

fn note(shared: &Shared, method: &str, volume_id: &str, path: &Path, more: impl FnOnce(&mut Call)) {
    let mut call = Call {
        method: method.to_owned(),
        volume_id: volume_id.to_owned(),
        path: path.to_string_lossy().into_owned(),
        ..Call::default()
    };
    more(&mut call);
    shared.calls.add(call);
}

async fn maybe_hang(shared: &Shared) {
    while shared.hangs.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn sorted(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn is_block(capability: Option<&v1::VolumeCapability>) -> bool {
    matches!(capability.and_then(|capability| capability.access_type.as_ref()), Some(AccessType::Block(_)))
}

fn how(capability: Option<&v1::VolumeCapability>, read_only: bool) -> String {
    let Some(capability) = capability else { return String::new() };
    let mode = capability.access_mode.as_ref().map(|mode| mode.mode).unwrap_or_default();
    let kind = match &capability.access_type {
        Some(AccessType::Mount(mount)) => format!("mount {}", mount.fs_type),
        Some(AccessType::Block(_)) => "block".to_owned(),
        None => String::new(),
    };
    format!("{kind} {mode}{}", if read_only { " ro" } else { "" })
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Answer<()> {
    let mount = |flags: MsFlags| {
        let mounted = nix::mount::mount(Some(source), target, None::<&str>, flags, None::<&str>);
        mounted.map_err(|error| Status::internal(format!("mount {}: {error}", target.display())))
    };
    mount(MsFlags::MS_BIND)?;
    if read_only {
        mount(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

fn unmount(target: &Path) -> Answer<()> {
    if !place::is_mounted(target) {
        return Ok(());
    }
    let unmounted = nix::mount::umount2(target, MntFlags::empty());
    unmounted.map_err(|error| Status::failed_precondition(format!("umount {}: {error}", target.display())))
}
