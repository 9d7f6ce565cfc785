//! The files of configMap, secret, downwardAPI and projected volumes.
//!
//! Objects are fetched here; what becomes of them is pure. Invariant: where two sources give the same path, the later one
//! wins, as upstream does it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::atomic::{FileContent, Payload};
use crate::objects::ObjectError;
use crate::pod;
use crate::set_up::{PodFields, Volumes};
use crate::trust_bundle;

const DEFAULT_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// Which plug-in makes a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
}

impl Kind {
    pub(crate) fn plugin(self) -> &'static str {
        match self {
            Self::ConfigMap => "kubernetes.io/configmap",
            Self::Secret => "kubernetes.io/secret",
            Self::DownwardApi => "kubernetes.io/downward-api",
            Self::Projected => "kubernetes.io/projected",
        }
    }

    /// Secrets never touch a disk.
    pub(crate) fn in_memory(self) -> bool {
        matches!(self, Self::Secret | Self::Projected)
    }
}

/// Which plug-in makes this volume, if its content comes from the API.
pub(crate) fn kind(volume: &Volume) -> Option<Kind> {
    if volume.config_map.is_some() {
        Some(Kind::ConfigMap)
    } else if volume.secret.is_some() {
        Some(Kind::Secret)
    } else if volume.downward_api.is_some() {
        Some(Kind::DownwardApi)
    } else if volume.projected.is_some() {
        Some(Kind::Projected)
    } else {
        None
    }
}

/// Why there is no payload; `transient` failures leave what is there.
pub(crate) struct PayloadError {
    pub(crate) message: String,
    pub(crate) transient: bool,
}

impl From<String> for PayloadError {
    fn from(message: String) -> Self {
        Self { message, transient: false }
    }
}

impl From<ObjectError> for PayloadError {
    fn from(error: ObjectError) -> Self {
        Self { message: error.to_string(), transient: !error.is_not_found() }
    }
}

struct Builder<'a> {
    volumes: &'a Volumes,
    pod: &'a Pod,
    fields: &'a dyn PodFields,
    max_age: Duration,
    files: Payload,
}

/// Collects the files of a volume.
pub(crate) async fn build(
    volumes: &Volumes,
    pod: &Pod,
    volume: &Volume,
    fields: &dyn PodFields,
    max_age: Duration,
) -> Result<Payload, PayloadError> {
    let mut builder = Builder { volumes, pod, fields, max_age, files: Payload::new() };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        builder.config_map(&source.name, source.items.as_deref(), source.optional, mode).await?;
    }
    if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        builder.secret(name, source.items.as_deref(), source.optional, mode).await?;
    }
    if let Some(source) = &volume.downward_api {
        builder.downward(source.items.as_deref(), source.default_mode.unwrap_or(DEFAULT_MODE))?;
    }
    if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in source.sources.as_deref().unwrap_or_default() {
            builder.projection(projection, mode).await?;
        }
    }
    Ok(builder.files)
}

impl Builder<'_> {
    async fn projection(&mut self, projection: &VolumeProjection, mode: i32) -> Result<(), PayloadError> {
        if let Some(source) = &projection.config_map {
            self.config_map(&source.name, source.items.as_deref(), source.optional, mode).await?;
        }
        if let Some(source) = &projection.secret {
            self.secret(&source.name, source.items.as_deref(), source.optional, mode).await?;
        }
        if let Some(source) = &projection.downward_api {
            self.downward(source.items.as_deref(), mode)?;
        }
        if let Some(source) = &projection.service_account_token {
            self.token(source, mode).await?;
        }
        if let Some(source) = &projection.cluster_trust_bundle {
            let anchors = trust_bundle::anchors(&self.volumes.deps.client, source).await;
            let anchors =
                anchors.map_err(|error| PayloadError { message: error.message, transient: error.transient })?;
            let text = anchors.unwrap_or_default();
            self.files.insert(source.path.clone(), content(text.into_bytes(), mode));
        }
        if projection.pod_certificate.is_some() {
            return Err("podCertificate projections are not supported".to_owned().into());
        }
        Ok(())
    }

    async fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), PayloadError> {
        let optional = optional.unwrap_or(false);
        let object = self.volumes.deps.objects.config_map(pod::namespace(self.pod), name, self.max_age).await;
        let object = match object {
            Ok(object) => object,
            Err(error) if optional && error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.files.extend(config_map_files(&object, items, optional, mode)?);
        Ok(())
    }

    async fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), PayloadError> {
        let optional = optional.unwrap_or(false);
        let object = match self.volumes.deps.objects.secret(pod::namespace(self.pod), name, self.max_age).await {
            Ok(object) => object,
            Err(error) if optional && error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.files.extend(secret_files(&object, items, optional, mode)?);
        Ok(())
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>, mode: i32) -> Result<(), PayloadError> {
        for item in items.unwrap_or_default() {
            let value = if let Some(field) = &item.field_ref {
                self.fields.field(&field.field_path)?
            } else if let Some(resource) = &item.resource_field_ref {
                self.fields.resource(resource)?
            } else {
                continue;
            };
            self.files.insert(item.path.clone(), content(value.into_bytes(), item.mode.unwrap_or(mode)));
        }
        Ok(())
    }

    async fn token(&mut self, source: &ServiceAccountTokenProjection, mode: i32) -> Result<(), PayloadError> {
        let audience = source.audience.as_deref().filter(|audience| !audience.is_empty());
        let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let token = self.volumes.tokens.get(self.pod, audience, seconds, self.volumes.now()).await;
        let token = token.map_err(|error| PayloadError { message: error.message, transient: error.transient })?;
        let user = pod::common_user(self.pod);
        let restricted = user.is_some() || pod::fs_group(self.pod).is_some();
        let mut file = content(token.text.into_bytes(), if restricted { 0o600 } else { mode });
        file.user = user;
        self.files.insert(source.path.clone(), file);
        Ok(())
    }
}

fn content(bytes: Vec<u8>, mode: i32) -> FileContent {
    FileContent { bytes, mode: u32::try_from(mode).unwrap_or(0o644) & 0o777, user: None }
}

fn config_map_files(
    object: &ConfigMap,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<Payload, String> {
    let text = object.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = object.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    select(text.chain(binary).collect(), items, optional, mode, "configmap references non-existent config key")
}

fn secret_files(object: &Secret, items: Option<&[KeyToPath]>, optional: bool, mode: i32) -> Result<Payload, String> {
    let data = object.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    select(data.collect(), items, optional, mode, "references non-existent secret key")
}

fn select(
    data: std::collections::BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
    missing: &str,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, bytes)| (key, content(bytes, mode))).collect());
    };
    let mut files = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                files.insert(item.path.clone(), content(bytes.clone(), item.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath { key: key.to_owned(), path: path.to_owned(), mode }
    }

    #[test]
    fn config_map_keys_become_files() {
        let object = ConfigMap {
            data: Some([("a".to_owned(), "1".to_owned())].into()),
            binary_data: Some([("b".to_owned(), ByteString(vec![0, 1]))].into()),
            ..ConfigMap::default()
        };
        let names = |files: Payload| {
            files.into_iter().map(|(path, file)| format!("{path}:{:o}", file.mode)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(config_map_files(&object, None, false, 0o644).map(names), Ok("a:644 b:644".to_owned()));
        let items = [item("b", "x/y", Some(0o400))];
        assert_eq!(config_map_files(&object, Some(&items), false, 0o644).map(names), Ok("x/y:400".to_owned()));
        let items = [item("none", "x", None)];
        assert_eq!(
            config_map_files(&object, Some(&items), false, 0o644),
            Err("configmap references non-existent config key: none".to_owned())
        );
        assert_eq!(config_map_files(&object, Some(&items), true, 0o644), Ok(Payload::new()));
    }
}
