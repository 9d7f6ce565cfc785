//! The storage class that a new cluster starts with.
//!
//! Invariant: it is made once in the life of a data directory. Who deletes or changes it afterwards is left alone: a note
//! beside the volumes says that it was made.

use std::path::Path;

use k8s_openapi::api::storage::v1::StorageClass;
use kedge_client::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::config::ReconcileError;

/// The name of the class.
pub const CLASS: &str = "local-path";
/// The provisioner that classes name.
pub const PROVISIONER: &str = "kedge.dev/local-path";

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const NOTE: &str = ".class-made";

/// Makes the class unless that was done before.
pub(crate) async fn ensure_class(client: &Client, root: &Path) -> Result<(), ReconcileError> {
    let note = root.join(NOTE);
    if note.exists() {
        return Ok(());
    }
    let classes = Api::<StorageClass>::all(client.clone());
    match classes.create(&PostParams::default(), &default_class()).await {
        Ok(_) => tracing::info!(class = CLASS, "made the default storage class"),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
        Err(error) => return Err(error.into()),
    }
    let failed = |source| ReconcileError::Directory { action: "cannot write", path: note.clone(), source };
    std::fs::File::create(&note).and_then(|file| file.sync_all()).map_err(failed)
}

fn default_class() -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some(CLASS.to_owned()),
            annotations: Some([(IS_DEFAULT.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        provisioner: PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    }
}
