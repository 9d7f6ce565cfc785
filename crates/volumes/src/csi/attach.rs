//! Waiting until a controller has attached a volume to this node.
//!
//! The kubelet attaches nothing. Invariant: the wait has an end, and an error of the attacher ends it at once.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use tokio::time::Instant;

use super::source::{CsiSource, attachment_name};
use crate::set_up::Volumes;

/// As long as upstream waits.
const PATIENCE: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What an attachment says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Attached(HashMap<String, String>),
    Failed(String),
    Wait,
}

/// What the attachment gave to pass on to the driver.
// DIVERGES: upstream looks at `node.status.volumesAttached` first; the VolumeAttachment alone decides here.
pub(crate) async fn wait(volumes: &Volumes, source: &CsiSource) -> Result<HashMap<String, String>, String> {
    let name = attachment_name(&source.handle, &source.driver, &volumes.deps.node_name);
    let api = Api::<VolumeAttachment>::all(volumes.deps.client.clone());
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(100);
    loop {
        let found = tokio::time::timeout_at(end, api.get_opt(&name)).await;
        match found {
            Ok(Ok(found)) => match verdict(found.as_ref()) {
                Verdict::Attached(context) => return Ok(context),
                Verdict::Failed(message) => return Err(message),
                Verdict::Wait => {}
            },
            Ok(Err(error)) => tracing::debug!(attachment = name, %error, "failed to read a volume attachment"),
            Err(_) => {}
        }
        if Instant::now() + pause >= end {
            return Err(format!(
                "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
                source.driver, source.handle
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn verdict(attachment: Option<&VolumeAttachment>) -> Verdict {
    let Some(attachment) = attachment else { return Verdict::Wait };
    if attachment.metadata.deletion_timestamp.is_some() {
        return Verdict::Failed("volume attachment is being deleted".to_owned());
    }
    let Some(status) = &attachment.status else { return Verdict::Wait };
    if status.attached {
        return Verdict::Attached(status.attachment_metadata.clone().unwrap_or_default().into_iter().collect());
    }
    match status.attach_error.as_ref().and_then(|error| error.message.clone()) {
        Some(message) => Verdict::Failed(message),
        None => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::storage::v1::{VolumeAttachmentStatus, VolumeError};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn what_an_attachment_says() {
        assert_eq!(verdict(None), Verdict::Wait);
        let mut attachment = VolumeAttachment::default();
        assert_eq!(verdict(Some(&attachment)), Verdict::Wait);
        let error = VolumeError { message: Some("no room".to_owned()), ..VolumeError::default() };
        attachment.status = Some(VolumeAttachmentStatus { attach_error: Some(error), ..Default::default() });
        assert_eq!(verdict(Some(&attachment)), Verdict::Failed("no room".to_owned()));
        attachment.status = Some(VolumeAttachmentStatus {
            attached: true,
            attachment_metadata: Some([("device".to_owned(), "sdb".to_owned())].into()),
            ..Default::default()
        });
        assert_eq!(verdict(Some(&attachment)), Verdict::Attached([("device".to_owned(), "sdb".to_owned())].into()));
        attachment.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(verdict(Some(&attachment)), Verdict::Failed("volume attachment is being deleted".to_owned()));
    }
}
