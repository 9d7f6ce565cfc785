//! `ResetConfiguration` of `kubeadm.k8s.io/v1beta4`: what of it has an effect, and what not.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use serde::Deserialize;
use serde_json::Value;

use crate::documents::{ConfigurationError, Documents};

/// What a reset is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ResetConfiguration {
    /// Where certificates are; the usual place where empty.
    pub certificates_dir: String,
    /// The container runtime's socket; found where empty.
    pub cri_socket: String,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Whether nobody is asked.
    pub force: bool,
    /// Whether the backups of upgrades go, too.
    pub cleanup_tmp_dir: bool,
    ignore_preflight_errors: Vec<String>,
    skip_phases: Vec<String>,
    unmount_flags: Vec<String>,
    timeouts: Value,
}

impl ResetConfiguration {
    /// Reads a file's text; what of the file has no effect besides.
    pub fn read(text: &str) -> Result<(Self, Vec<String>), ConfigurationError> {
        let documents = Documents::read(text)?;
        let reset = documents.reset.ok_or_else(|| ConfigurationError::Value {
            field: "--config".to_owned(),
            why: "no ResetConfiguration found in the supplied config".to_owned(),
        })?;
        let others = documents.kinds.into_iter().filter(|kind| kind != "ResetConfiguration");
        let without_effect = reset.without_effect().into_iter().chain(others).collect();
        Ok((reset, without_effect))
    }

    /// The fields that were given and do nothing.
    pub(crate) fn without_effect(&self) -> Vec<String> {
        let fields = [
            ("ignorePreflightErrors", !self.ignore_preflight_errors.is_empty()),
            ("skipPhases", !self.skip_phases.is_empty()),
            ("unmountFlags", !self.unmount_flags.is_empty()),
            ("timeouts", !self.timeouts.is_null()),
        ];
        let named = fields.into_iter().filter(|(_, is_given)| *is_given);
        named.map(|(name, _)| format!("ResetConfiguration.{name}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_an_effect_is_read_and_the_rest_named() {
        let head = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\n";
        let (read, unused) =
            ResetConfiguration::read(&format!("{head}force: true\ncriSocket: unix:///a\nskipPhases: [a]\n")).unwrap();
        assert!(read.force && !read.dry_run);
        assert_eq!((read.cri_socket.as_str(), unused), ("unix:///a", vec!["ResetConfiguration.skipPhases".to_owned()]));
        assert!(ResetConfiguration::read(&format!("{head}forced: true\n")).is_err());
        let other = ResetConfiguration::read("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n");
        assert!(other.unwrap_err().to_string().contains("no ResetConfiguration found"));
    }
}
