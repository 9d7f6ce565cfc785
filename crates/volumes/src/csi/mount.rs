//! CSI volumes as file systems: staged once on the node, published for each pod.
//!
//! Invariant: the pod's record is written before anything is asked of the driver, so that whatever the driver did, or was
//! still doing when this process ended, is undone with the pod.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, SecretReference};
use kedge_csi::{AccessType, NodeCapabilities, Publish, Stage};
use serde_json::json;

use super::driver_object::DriverFacts;
use super::drivers::Registered;
use super::record::{self, VolumeRecord};
use super::source::{CsiSource, attachment_name};
use super::{PLUGIN, attach, said};
use crate::dirs::write_marker;
use crate::failure::{Operation, VolumeError};
use crate::mount_table::is_mount_point;
use crate::set_up::Volumes;
use crate::{ownership, pod};

/// A driver that hangs must not keep a running pod from being looked after.
const REPUBLISH_DEADLINE: Duration = Duration::from_secs(10);
const TOKEN_SECONDS: i64 = 3600;

/// Where the volume is, and whether the driver wants to be called again from time to time.
pub(crate) async fn ensure(volumes: &Volumes, pod: &Pod, source: &CsiSource) -> Result<(PathBuf, bool), VolumeError> {
    let fails = |operation: Operation| move |message: String| VolumeError::new(operation, &source.spec_name, message);
    let directory = volumes.deps.dirs.volume(pod::uid(pod), PLUGIN, &source.spec_name);
    let target = directory.join("mount");
    let marker = volumes.deps.dirs.ready_marker(pod::uid(pod), PLUGIN, &source.spec_name);
    // Looking at what is mounted could hang with its server; the mount table cannot.
    let ready = marker.exists() && (is_mount_point(&target) || target.exists());
    let facts = match volumes.csi.objects.get(&source.driver).await {
        Ok(facts) => facts,
        Err(_) if ready => return Ok((target, false)),
        Err(error) => return Err(fails(Operation::NewMounter)(error)),
    };
    if ready && !facts.requires_republish {
        return Ok((target, false));
    }
    facts.allows(&source.driver, source.lifecycle()).map_err(fails(Operation::NewMounter))?;
    let mount = Mount { volumes, pod, source, facts: &facts, target: &target };
    if ready {
        mount.publish_again().await.map_err(fails(Operation::SetUp))?;
        return Ok((target, true));
    }
    mount.first_time(&directory).await?;
    write_marker(&marker).map_err(|error| VolumeError::set_up(&source.spec_name, error))?;
    Ok((target, facts.requires_republish))
}

struct Mount<'a> {
    volumes: &'a Volumes,
    pod: &'a Pod,
    source: &'a CsiSource,
    facts: &'a DriverFacts,
    target: &'a Path,
}

impl Mount<'_> {
    async fn first_time(&self, directory: &Path) -> Result<(), VolumeError> {
        let source = self.source;
        let fails =
            |operation: Operation| move |message: String| VolumeError::new(operation, &source.spec_name, message);
        let attached = needs_attachment(source, self.facts);
        let context = match attached {
            true => attach::wait(self.volumes, source).await.map_err(fails(Operation::WaitForAttach))?,
            false => HashMap::new(),
        };
        let _lock = self.volumes.csi.locks.lock(&source.driver, &source.handle).await;
        self.volumes.check_alive(self.pod).map_err(fails(Operation::SetUp))?;
        let registered = self.volumes.csi.drivers.get(&source.driver).map_err(|error| {
            let (operation, what) = match source.ephemeral {
                true => (Operation::SetUp, "mounter.SetUpAt failed to get CSI client"),
                false => (Operation::MountDevice, "attacher.MountDevice failed to create newCsiDriverClient"),
            };
            fails(operation)(said(format!("{what}: {error}")))
        })?;
        let capabilities =
            registered.capabilities().await.map_err(|error| fails(Operation::MountDevice)(error.to_string()))?;
        record::save(directory, &pod_record(self.volumes, source, attached))
            .map_err(|error| fails(Operation::SetUp)(said(format!("failed to save volume info data: {error}"))))?;
        let staging = match !source.ephemeral && capabilities.stage {
            true => Some(self.stage(&registered, capabilities, &context).await.map_err(fails(Operation::MountDevice))?),
            false => None,
        };
        let publish = self.request(capabilities, staging, context).await.map_err(fails(Operation::SetUp))?;
        if let Err(error) = registered.driver.publish(publish).await {
            self.clean_up_after(&error, directory);
            return Err(fails(Operation::SetUp)(error.to_string()));
        }
        self.give_to_group(capabilities).await.map_err(fails(Operation::SetUp))
    }

    /// A driver that has certainly done nothing leaves nothing to undo.
    fn clean_up_after(&self, error: &kedge_csi::CsiError, directory: &Path) {
        if error.is_final()
            && !is_mount_point(self.target)
            && let Err(problem) = record::remove(directory, self.target)
        {
            tracing::warn!(path = %directory.display(), error = %problem, "failed to remove a volume's directory");
        }
    }

    async fn stage(
        &self,
        registered: &Registered,
        capabilities: NodeCapabilities,
        context: &HashMap<String, String>,
    ) -> Result<PathBuf, String> {
        let source = self.source;
        let place = self.volumes.deps.dirs.csi_staging(&source.driver, &source.handle);
        let staging_path = place.join("globalmount");
        if self.volumes.csi.staged.lock().contains(&staging_path) {
            return Ok(staging_path);
        }
        let note = VolumeRecord {
            volume_handle: source.handle.clone(),
            driver_name: source.driver.clone(),
            ..VolumeRecord::default()
        };
        record::save(&place, &note).and_then(|()| std::fs::create_dir_all(&staging_path)).map_err(|error| {
            said(format!("attacher.MountDevice failed to create dir {:?}: {error}", staging_path.display()))
        })?;
        let stage = Stage {
            volume_id: source.handle.clone(),
            staging_path: staging_path.clone(),
            access_type: self.access_type(capabilities),
            access_mode: source.access_mode(capabilities),
            publish_context: context.clone(),
            volume_context: source.attributes.clone(),
            secrets: secrets(self.volumes, source.stage_secret.as_ref(), "NodeStageSecretRef").await?,
        };
        registered.driver.stage(stage).await.map_err(|error| error.to_string())?;
        self.volumes.csi.staged.lock().insert(staging_path.clone());
        Ok(staging_path)
    }

    async fn publish_again(&self) -> Result<(), String> {
        let registered = self.volumes.csi.drivers.get(&self.source.driver);
        let registered =
            registered.map_err(|error| said(format!("mounter.SetUpAt failed to get CSI client: {error}")))?;
        let again = async {
            let capabilities = registered.capabilities().await.map_err(|error| error.to_string())?;
            let context = match needs_attachment(self.source, self.facts) {
                true => attach::wait(self.volumes, self.source).await?,
                false => HashMap::new(),
            };
            let place = self.volumes.deps.dirs.csi_staging(&self.source.driver, &self.source.handle);
            let staging = (!self.source.ephemeral && capabilities.stage).then(|| place.join("globalmount"));
            let publish = self.request(capabilities, staging, context).await?;
            registered.driver.publish(publish).await.map_err(|error| error.to_string())
        };
        let answer = tokio::time::timeout(REPUBLISH_DEADLINE, again).await;
        answer.unwrap_or_else(|_| Err("the driver did not answer in time".to_owned()))
    }

    fn access_type(&self, capabilities: NodeCapabilities) -> AccessType {
        AccessType::Mount {
            fs_type: self.source.fs_type.clone(),
            flags: self.source.mount_options.clone(),
            group: pod::fs_group(self.pod).filter(|_| capabilities.mount_group),
        }
    }

    async fn request(
        &self,
        capabilities: NodeCapabilities,
        staging_path: Option<PathBuf>,
        publish_context: HashMap<String, String>,
    ) -> Result<Publish, String> {
        let source = self.source;
        let mut volume_context = source.attributes.clone();
        let mut secrets = secrets(self.volumes, source.publish_secret.as_ref(), "NodePublishSecretRef").await?;
        volume_context.extend(self.pod_info());
        if let Some((key, tokens)) = self.tokens().await? {
            let wherever = if self.facts.tokens_in_secrets { &mut secrets } else { &mut volume_context };
            wherever.insert(key, tokens);
        }
        Ok(Publish {
            volume_id: source.handle.clone(),
            staging_path,
            target_path: self.target.to_owned(),
            read_only: source.read_only,
            access_type: self.access_type(capabilities),
            access_mode: source.access_mode(capabilities),
            publish_context,
            volume_context,
            secrets,
        })
    }

    fn pod_info(&self) -> Vec<(String, String)> {
        if !self.facts.pod_info {
            return Vec::new();
        }
        let account = pod::spec(self.pod).service_account_name.as_deref().unwrap_or_default();
        [
            ("csi.storage.k8s.io/pod.name", pod::name(self.pod)),
            ("csi.storage.k8s.io/pod.namespace", pod::namespace(self.pod)),
            ("csi.storage.k8s.io/pod.uid", pod::uid(self.pod)),
            ("csi.storage.k8s.io/serviceAccount.name", account),
            ("csi.storage.k8s.io/ephemeral", if self.source.ephemeral { "true" } else { "false" }),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// The tokens that the driver asks for, by audience.
    async fn tokens(&self) -> Result<Option<(String, String)>, String> {
        let requests = &self.facts.token_requests;
        if requests.is_empty() {
            return Ok(None);
        }
        let mut by_audience = serde_json::Map::new();
        for request in requests {
            let audience = Some(request.audience.as_str()).filter(|audience| !audience.is_empty());
            let seconds = request.expiration_seconds.unwrap_or(TOKEN_SECONDS);
            let token = self.volumes.tokens.get(self.pod, audience, seconds, self.volumes.now()).await;
            let token = token.map_err(|error| {
                said(format!("mounter.SetUpAt failed to get service accoount token attributes: {error}"))
            })?;
            let status = json!({ "token": token.text, "expirationTimestamp": seconds_only(token.expires_at) });
            by_audience.insert(request.audience.clone(), status);
        }
        let text = serde_json::Value::Object(by_audience).to_string();
        Ok(Some(("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), text)))
    }

    async fn give_to_group(&self, capabilities: NodeCapabilities) -> Result<(), String> {
        if capabilities.mount_group || !self.source.takes_group(&self.facts.fs_group_policy) {
            return Ok(());
        }
        let (pod, target) = (self.pod.clone(), self.target.to_owned());
        let done = tokio::task::spawn_blocking(move || ownership::apply(&pod, &target, false)).await;
        done.map_err(|error| error.to_string())?
            .map_err(|error| format!("applyFSGroup failed for vol {}: {error}", self.source.handle))
    }
}

/// Whether a controller attaches the volume first.
pub(crate) fn needs_attachment(source: &CsiSource, facts: &DriverFacts) -> bool {
    !source.ephemeral && facts.attach_required
}

pub(crate) fn pod_record(volumes: &Volumes, source: &CsiSource, attached: bool) -> VolumeRecord {
    let node = &volumes.deps.node_name;
    let attachment = attached.then(|| attachment_name(&source.handle, &source.driver, node));
    VolumeRecord {
        spec_volume: source.spec_name.clone(),
        volume_handle: source.handle.clone(),
        driver_name: source.driver.clone(),
        node_name: node.clone(),
        attachment_id: attachment.unwrap_or_default(),
        volume_lifecycle_mode: source.lifecycle().to_owned(),
    }
}

/// The content of a secret, for a driver.
pub(crate) async fn secrets(
    volumes: &Volumes,
    reference: Option<&SecretReference>,
    what: &str,
) -> Result<HashMap<String, String>, String> {
    let Some(reference) = reference else { return Ok(HashMap::new()) };
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    let name = reference.name.as_deref().unwrap_or_default();
    let secret = volumes.deps.objects.secret(namespace, name, Duration::ZERO).await;
    let secret = secret.map_err(|error| {
        let cause = said(format!("failed to find the secret {name} in the namespace {namespace} with error: {error}"));
        format!("fetching {what} {namespace}/{name} failed: {cause}")
    })?;
    let data = secret.data.iter().flatten();
    Ok(data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect())
}

/// Go writes no fraction of a second here.
fn seconds_only(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
