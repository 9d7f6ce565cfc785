//! Upstream's configuration file of the kubelet, `KubeletConfiguration` of `kubelet.config.k8s.io/v1beta1`.
//!
//! Pure: text in, settings out. Invariant: no field of the file is passed over in silence. Fields that change what
//! workloads get and are not supported are refused; those that only tune, or that somebody else decides, are named in a
//! warning; unknown ones are errors.

mod document;
mod duration;
mod fields;
mod launch;
mod thresholds;

use serde_json::Value;

use crate::config::Config;
use document::Document;
use fields::{Support, support};
pub use launch::LaunchSettings;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// Who starts the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// `kedge up`, which decides addresses, certificates and the runtime itself.
    Up,
    /// The kubelet is a process of its own and takes them from the file.
    Kubelet,
}

/// A configuration file that was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KubeletConfiguration {
    document: Document,
    launch: LaunchSettings,
    warnings: Vec<String>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The text is no YAML.
    #[error("the file is not YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// The document is another one.
    #[error(
        "the file is a {kind} of {api_version}, where a KubeletConfiguration of kubelet.config.k8s.io/v1beta1 is expected"
    )]
    OtherKind {
        /// What it says.
        api_version: String,
        /// What it says.
        kind: String,
    },
    /// A field is not known, or has the wrong type.
    #[error("a field is not understood")]
    Field(#[source] serde_json::Error),
    /// A field asks for what kedge does not do.
    #[error("{field}: {value} is not supported; only {supported} is")]
    Unsupported {
        /// The field's name.
        field: String,
        /// What it asks for.
        value: String,
        /// What would be accepted.
        supported: String,
    },
    /// A field's value makes no sense.
    #[error("{field}: {why}")]
    Invalid {
        /// The field's name.
        field: String,
        /// What is wrong.
        why: String,
    },
}

impl ConfigurationError {
    fn invalid(field: &str, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.to_owned(), why: why.into() }
    }
}

impl KubeletConfiguration {
    /// Reads a file's text.
    pub fn read(text: &str, starter: Starter) -> Result<Self, ConfigurationError> {
        let mut value: Value = serde_yaml::from_str(text)?;
        let said = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (said("apiVersion"), said("kind"));
        if api_version != API_VERSION || kind != KIND {
            return Err(ConfigurationError::OtherKind { api_version, kind });
        }
        let launch = LaunchSettings::read(&value)?;
        let mut warnings = Vec::new();
        if let Some(object) = value.as_object_mut() {
            object.remove("apiVersion");
            object.remove("kind");
            let mut refused = None;
            object.retain(|field, value| match support(field, value, starter) {
                Support::Used => true,
                Support::AsItIs => false,
                Support::NotUsed(why) => {
                    warnings.push(format!("{field} is not used: {why}"));
                    false
                }
                Support::Refused(supported) => {
                    let (field, value) = (field.clone(), value.to_string());
                    refused.get_or_insert(ConfigurationError::Unsupported { field, value, supported });
                    false
                }
            });
            if let Some(refused) = refused {
                return Err(refused);
            }
        }
        let document: Document = serde_json::from_value(value).map_err(ConfigurationError::Field)?;
        // Whatever else is wrong shows at once, not when it is applied.
        document.apply(&mut Config::default(), &mut warnings)?;
        Ok(Self { document, launch, warnings })
    }

    /// What the file says to who starts the kubelet.
    pub fn launch(&self) -> &LaunchSettings {
        &self.launch
    }

    /// What in the file has no effect, and why.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Takes what the file says into a configuration.
    pub fn apply(&self, config: &mut Config) -> Result<(), ConfigurationError> {
        self.document.apply(config, &mut Vec::new())
    }
}

#[cfg(test)]
mod tests;
