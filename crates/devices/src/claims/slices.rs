//! ResourceSlices of drivers that are gone: nobody else takes them away.

use std::time::Duration;

use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Deletes the slices of a node that `is_gone` says so of, by driver. Tries until it succeeds or is stopped.
pub(crate) async fn wipe(
    client: kube::Client,
    node: &str,
    driver: Option<&str>,
    is_gone: impl Fn(&str) -> bool,
    stop: &CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = wipe_once(&client, node, driver, &is_gone).await {
        tracing::warn!(%error, "the ResourceSlices of drivers that are gone could not be deleted; trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn wipe_once(
    client: &kube::Client,
    node: &str,
    driver: Option<&str>,
    is_gone: &impl Fn(&str) -> bool,
) -> Result<(), kube::Error> {
    let api = Api::<ResourceSlice>::all(client.clone());
    let mut selector = format!("spec.nodeName={node}");
    if let Some(driver) = driver {
        selector.push_str(&format!(",spec.driver={driver}"));
    }
    for slice in api.list(&ListParams::default().fields(&selector)).await? {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        if !is_gone(&slice.spec.driver) {
            continue;
        }
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
            Ok(_) => tracing::info!(slice = name, driver = slice.spec.driver, "deleted a slice whose driver is gone"),
        }
    }
    Ok(())
}
