//! Upstream's configuration file of the scheduler, `KubeSchedulerConfiguration` of `kubescheduler.config.k8s.io/v1`.
//!
//! Pure. Invariant: no field is passed over in silence: an unknown one is refused, one that has no effect here is named.

mod arguments;
mod leader;
mod validate;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use arguments::{
    BalancedAllocationArgs, DefaultPreemptionArgs, FitArgs, InterPodAffinityArgs, NodeAffinityArgs, ResourceSpec,
    ScoringStrategy, SpreadArgs, UtilizationShapePoint, VolumeBindingArgs,
};
pub use leader::LeaderElection;
pub(crate) use leader::duration;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It is no YAML, or a field is unknown or of another type.
    #[error("the scheduler's configuration can't be read")]
    Unreadable(#[source] serde_yaml::Error),
    /// The same, within its fields.
    #[error("the scheduler's configuration can't be decoded")]
    Undecodable(#[source] serde_json::Error),
    /// It is a file of another kind.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"; this takes {KIND} of {API_VERSION}")]
    Kind {
        /// What the file says it is.
        kind: String,
        /// In which version.
        api_version: String,
    },
    /// Values are out of bounds, or do not go together; upstream's words, one after the other.
    #[error("{0}")]
    Invalid(String),
}

/// The file. Absent fields are upstream's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeSchedulerConfiguration {
    api_version: String,
    kind: String,
    parallelism: Option<i32>,
    /// How it competes with others.
    pub leader_election: LeaderElection,
    /// How it reaches the API server.
    pub client_connection: ClientConnection,
    enable_profiling: Option<bool>,
    enable_contention_profiling: Option<bool>,
    pub(crate) percentage_of_nodes_to_score: Option<i32>,
    pub(crate) pod_initial_backoff_seconds: i64,
    pub(crate) pod_max_backoff_seconds: i64,
    pub(crate) profiles: Vec<ProfileConfiguration>,
    pub(crate) extenders: Vec<ExtenderConfiguration>,
    delay_cache_until_active: Option<bool>,
}

impl Default for KubeSchedulerConfiguration {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            parallelism: None,
            leader_election: LeaderElection::default(),
            client_connection: ClientConnection::default(),
            enable_profiling: None,
            enable_contention_profiling: None,
            percentage_of_nodes_to_score: None,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            profiles: vec![ProfileConfiguration::default()],
            extenders: Vec::new(),
            delay_cache_until_active: None,
        }
    }
}

/// How it reaches the API server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClientConnection {
    /// The file that says how; empty where none does.
    pub kubeconfig: String,
    accept_content_types: Option<String>,
    content_type: Option<String>,
    qps: Option<f32>,
    burst: Option<i32>,
}

/// How pods of one `spec.schedulerName` are placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ProfileConfiguration {
    pub(crate) scheduler_name: String,
    pub(crate) percentage_of_nodes_to_score: Option<i32>,
    pub(crate) plugins: PluginSets,
    pub(crate) plugin_config: Vec<PluginConfig>,
}

impl Default for ProfileConfiguration {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            percentage_of_nodes_to_score: None,
            plugins: PluginSets::default(),
            plugin_config: Vec::new(),
        }
    }
}

/// Which plugins take part at which point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct PluginSets {
    pub(crate) pre_enqueue: PluginSet,
    pub(crate) queue_sort: PluginSet,
    pub(crate) pre_filter: PluginSet,
    pub(crate) filter: PluginSet,
    pub(crate) post_filter: PluginSet,
    pub(crate) pre_score: PluginSet,
    pub(crate) score: PluginSet,
    pub(crate) reserve: PluginSet,
    pub(crate) permit: PluginSet,
    pub(crate) pre_bind: PluginSet,
    pub(crate) bind: PluginSet,
    pub(crate) post_bind: PluginSet,
    pub(crate) multi_point: PluginSet,
    pub(crate) placement_generate: PluginSet,
    pub(crate) placement_score: PluginSet,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginSet {
    pub(crate) enabled: Vec<PluginName>,
    pub(crate) disabled: Vec<PluginName>,
}

impl PluginSet {
    pub(crate) fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|plugin| plugin.name == "*" || plugin.name == name)
    }

    fn is_empty(&self) -> bool {
        self.enabled.is_empty() && self.disabled.is_empty()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginName {
    pub(crate) name: String,
    pub(crate) weight: Option<i32>,
}

/// What a plugin is told, by its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginConfig {
    pub(crate) name: String,
    pub(crate) args: Value,
}

/// A program outside that takes part in decisions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ExtenderConfiguration {
    pub(crate) url_prefix: String,
    pub(crate) filter_verb: String,
    pub(crate) preempt_verb: String,
    pub(crate) prioritize_verb: String,
    pub(crate) weight: i64,
    pub(crate) bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub(crate) enable_https: bool,
    pub(crate) tls_config: Option<ExtenderTls>,
    #[serde(rename = "httpTimeout")]
    pub(crate) http_timeout: Option<String>,
    pub(crate) node_cache_capable: bool,
    pub(crate) managed_resources: Vec<ManagedResource>,
    pub(crate) ignorable: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ManagedResource {
    pub(crate) name: String,
    pub(crate) ignored_by_scheduler: bool,
}

/// How an extender is recognized, and recognizes the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ExtenderTls {
    pub(crate) insecure: bool,
    pub(crate) server_name: String,
    pub(crate) cert_file: String,
    pub(crate) key_file: String,
    pub(crate) ca_file: String,
    /// Base64, as all of these.
    pub(crate) cert_data: String,
    #[serde(skip_serializing)]
    pub(crate) key_data: String,
    pub(crate) ca_data: String,
}

impl KubeSchedulerConfiguration {
    /// Reads a file. It is known to be usable then, and its plugins' arguments are.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigurationError> {
        let value: Value = serde_yaml::from_str(text).map_err(ConfigurationError::Unreadable)?;
        let named = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, api_version) = (named("kind"), named("apiVersion"));
        if kind != KIND || api_version != API_VERSION {
            return Err(ConfigurationError::Kind { kind, api_version });
        }
        let read: Self = serde_json::from_value(value).map_err(ConfigurationError::Undecodable)?;
        validate::validate(&read)?;
        crate::profile::profiles(&read)?;
        Ok(read)
    }

    /// What the file says that has no effect here.
    pub fn without_effect(&self) -> Vec<String> {
        let client = &self.client_connection;
        let mut named: Vec<String> = [
            ("parallelism", self.parallelism.is_some()),
            ("enableProfiling", self.enable_profiling.is_some()),
            ("enableContentionProfiling", self.enable_contention_profiling.is_some()),
            ("delayCacheUntilActive", self.delay_cache_until_active.is_some()),
            ("clientConnection.acceptContentTypes", client.accept_content_types.is_some()),
            ("clientConnection.contentType", client.content_type.is_some()),
            ("clientConnection.qps", client.qps.is_some()),
            ("clientConnection.burst", client.burst.is_some()),
        ]
        .into_iter()
        .filter(|(_, is_said)| *is_said)
        .map(|(field, _)| field.to_owned())
        .collect();
        for (index, profile) in self.profiles.iter().enumerate() {
            let sets = &profile.plugins;
            let points = [
                ("preEnqueue", &sets.pre_enqueue),
                ("preScore", &sets.pre_score),
                ("reserve", &sets.reserve),
                ("permit", &sets.permit),
                ("preBind", &sets.pre_bind),
                ("postBind", &sets.post_bind),
                ("placementGenerate", &sets.placement_generate),
                ("placementScore", &sets.placement_score),
            ];
            let said = points.into_iter().filter(|(_, set)| !set.is_empty());
            named.extend(said.map(|(point, _)| format!("profiles[{index}].plugins.{point}")));
            let useless =
                profile.plugin_config.iter().enumerate().filter(|(_, config)| !arguments::is_read(&config.name));
            named.extend(useless.map(|(at, _)| format!("profiles[{index}].pluginConfig[{at}]")));
        }
        named
    }

    pub(crate) fn parallelism(&self) -> i32 {
        self.parallelism.unwrap_or(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(body: &str) -> String {
        format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{body}")
    }

    #[test]
    fn a_file_says_what_is_not_the_default() {
        let read = KubeSchedulerConfiguration::from_yaml(&file("")).unwrap();
        assert_eq!(read, KubeSchedulerConfiguration::default());
        let text = file(
            "leaderElection: {leaderElect: false, leaseDuration: 30s}\nparallelism: 4\n\
             clientConnection: {kubeconfig: /k, qps: 50}\n\
             profiles: [{plugins: {reserve: {disabled: [{name: '*'}]}}}]",
        );
        let read = KubeSchedulerConfiguration::from_yaml(&text).unwrap();
        assert_eq!(read.leader_election.leader_elect, Some(false));
        assert_eq!(read.client_connection.kubeconfig, "/k");
        assert_eq!(read.profiles[0].scheduler_name, "default-scheduler");
        assert_eq!(read.without_effect(), ["parallelism", "clientConnection.qps", "profiles[0].plugins.reserve"]);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let refused = |text: &str| KubeSchedulerConfiguration::from_yaml(text).is_err();
        assert!(refused("kind: Pod\napiVersion: v1\n"));
        assert!(refused(&file("nonsense: 1\n")));
        assert!(refused(&file("profiles: [{plugins: {filter: {enabled: [{name: A, colour: red}]}}}]\n")));
        assert!(refused("\t"));
    }
}
