//! The controller service: volumes come and go, and are attached with a word for the node.

use kedge_csi::v1;
use tonic::Status;

use crate::{Call, Shared, place};

pub(crate) async fn capabilities() -> Result<v1::ControllerGetCapabilitiesResponse, Status> {
    let capability =
        |number: i32| v1::ControllerServiceCapability { rpc: Some(v1::ControllerServiceRpc { r#type: number }) };
    Ok(v1::ControllerGetCapabilitiesResponse { capabilities: vec![capability(1), capability(2)] })
}

pub(crate) async fn create(
    shared: &Shared,
    request: v1::CreateVolumeRequest,
) -> Result<v1::CreateVolumeResponse, Status> {
    note(shared, "CreateVolume", &request.name);
    let made = std::fs::create_dir_all(place::directory(&shared.state, &request.name));
    made.map_err(|error| Status::internal(error.to_string()))?;
    let capacity_bytes = request.capacity_range.as_ref().map(|range| range.required_bytes).unwrap_or_default();
    let volume = v1::Volume { volume_id: request.name, capacity_bytes, ..Default::default() };
    Ok(v1::CreateVolumeResponse { volume: Some(volume) })
}

pub(crate) async fn delete(
    shared: &Shared,
    request: v1::DeleteVolumeRequest,
) -> Result<v1::DeleteVolumeResponse, Status> {
    note(shared, "DeleteVolume", &request.volume_id);
    match std::fs::remove_dir_all(place::directory(&shared.state, &request.volume_id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Status::internal(error.to_string())),
        _ => Ok(v1::DeleteVolumeResponse {}),
    }
}

pub(crate) async fn publish(
    shared: &Shared,
    request: v1::ControllerPublishVolumeRequest,
) -> Result<v1::ControllerPublishVolumeResponse, Status> {
    note(shared, "ControllerPublishVolume", &request.volume_id);
    if request.node_id != shared.options.node_id {
        return Err(Status::not_found(format!("there is no node {:?}", request.node_id)));
    }
    let publish_context = [("attached-to".to_owned(), request.node_id)].into();
    Ok(v1::ControllerPublishVolumeResponse { publish_context })
}

pub(crate) async fn unpublish(
    shared: &Shared,
    request: v1::ControllerUnpublishVolumeRequest,
) -> Result<v1::ControllerUnpublishVolumeResponse, Status> {
    note(shared, "ControllerUnpublishVolume", &request.volume_id);
    Ok(v1::ControllerUnpublishVolumeResponse {})
}

fn note(shared: &Shared, method: &str, volume_id: &str) {
    shared.calls.add(Call { method: method.to_owned(), volume_id: volume_id.to_owned(), ..Call::default() });
}
