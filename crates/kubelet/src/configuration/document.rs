//! The fields of upstream's document that are honoured, and how each changes the configuration.
//!
//! Pure. Invariant: a field that is absent, or empty in Go's sense, leaves the default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use kedge_meta::Quantity;
use serde::Deserialize;

use super::thresholds::{Maps, Texts, thresholds};
use super::{ConfigurationError, duration};
use crate::admit;
use crate::config::{Config, Reserved};

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Document {
    allowed_unsafe_sysctls: Vec<String>,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Vec<IpAddr>,
    cluster_domain: String,
    container_log_max_files: Option<u32>,
    container_log_max_size: String,
    container_log_monitor_interval: String,
    enable_system_log_handler: Option<bool>,
    enable_system_log_query: Option<bool>,
    enforce_node_allocatable: Option<Vec<String>>,
    eviction_hard: Option<Texts>,
    eviction_max_pod_grace_period: u64,
    eviction_minimum_reclaim: Option<Texts>,
    eviction_pressure_transition_period: String,
    eviction_soft: Option<Texts>,
    eviction_soft_grace_period: Option<Texts>,
    healthz_bind_address: String,
    healthz_port: Option<u16>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: Option<u8>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: Option<u8>,
    #[serde(rename = "imageMaximumGCAge")]
    image_maximum_gc_age: String,
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: String,
    kube_reserved: BTreeMap<String, String>,
    local_storage_capacity_isolation: Option<bool>,
    max_parallel_image_pulls: Option<usize>,
    max_pods: u32,
    merge_default_eviction_settings: Option<bool>,
    pod_pids_limit: Option<i64>,
    register_node: Option<bool>,
    register_with_taints: Vec<Taint>,
    resolv_conf: Option<String>,
    serialize_image_pulls: Option<bool>,
    static_pod_path: String,
    system_reserved: BTreeMap<String, String>,
}

impl Document {
    pub(super) fn apply(&self, config: &mut Config, warnings: &mut Vec<String>) -> Result<(), ConfigurationError> {
        self.apply_plain(config)?;
        self.apply_logs(config)?;
        self.apply_images(config)?;
        self.apply_eviction(config, warnings)?;
        config.kube_reserved = reserved("kubeReserved", &self.kube_reserved)?;
        config.system_reserved = reserved("systemReserved", &self.system_reserved)?;
        if let Some(enforced) = &self.enforce_node_allocatable {
            config.enforce_node_allocatable = enforcement(enforced)?;
        }
        let checked = Config { node_name: "node".to_owned(), ..config.clone() };
        checked.validate().map_err(|why| ConfigurationError::invalid("KubeletConfiguration", why))
    }

    fn apply_plain(&self, config: &mut Config) -> Result<(), ConfigurationError> {
        if !self.cluster_dns.is_empty() {
            config.cluster_dns.clone_from(&self.cluster_dns);
        }
        if !self.cluster_domain.is_empty() {
            config.cluster_domain.clone_from(&self.cluster_domain);
        }
        if self.max_pods > 0 {
            config.max_pods = self.max_pods;
        }
        if let Some(limit) = self.pod_pids_limit {
            config.pod_pids_limit = limit;
        }
        config.enable_system_log_handler = self.enable_system_log_handler.unwrap_or(config.enable_system_log_handler);
        config.enable_system_log_query = self.enable_system_log_query.unwrap_or(config.enable_system_log_query);
        self.apply_healthz(config)?;
        if let Some(register) = self.register_node {
            config.register_node = register;
        }
        if !self.register_with_taints.is_empty() {
            config.taints.clone_from(&self.register_with_taints);
        }
        if let Some(path) = &self.resolv_conf {
            config.resolv_conf = Some(PathBuf::from(path)).filter(|_| !path.is_empty());
        }
        if !self.static_pod_path.is_empty() {
            config.static_pod_path = Some(self.static_pod_path.clone().into());
        }
        for sysctl in &self.allowed_unsafe_sysctls {
            if admit::namespace_of(sysctl).is_none() {
                let why = format!("the sysctls {sysctl:?} are not known to be namespaced");
                return Err(ConfigurationError::invalid("allowedUnsafeSysctls", why));
            }
        }
        config.allowed_unsafe_sysctls.clone_from(&self.allowed_unsafe_sysctls);
        Ok(())
    }

    fn apply_healthz(&self, config: &mut Config) -> Result<(), ConfigurationError> {
        if !self.healthz_bind_address.is_empty() {
            let address = self.healthz_bind_address.parse();
            let wrong = |_| ConfigurationError::invalid("healthzBindAddress", "it is no IP address".to_owned());
            config.healthz_bind_address = address.map_err(wrong)?;
        }
        config.healthz_port = self.healthz_port.unwrap_or(config.healthz_port);
        Ok(())
    }

    fn apply_logs(&self, config: &mut Config) -> Result<(), ConfigurationError> {
        if !self.container_log_max_size.is_empty() {
            let size = quantity("containerLogMaxSize", &self.container_log_max_size)?;
            config.container_log_max_bytes = size;
        }
        if let Some(files) = self.container_log_max_files {
            config.container_log_max_files = files;
        }
        set(
            "containerLogMonitorInterval",
            &self.container_log_monitor_interval,
            &mut config.container_log_monitor_interval,
        )
    }

    fn apply_images(&self, config: &mut Config) -> Result<(), ConfigurationError> {
        let gc = &mut config.image_gc;
        gc.high_threshold_percent = self.image_gc_high_threshold_percent.unwrap_or(gc.high_threshold_percent);
        gc.low_threshold_percent = self.image_gc_low_threshold_percent.unwrap_or(gc.low_threshold_percent);
        set("imageMinimumGCAge", &self.image_minimum_gc_age, &mut gc.minimum_age)?;
        set("imageMaximumGCAge", &self.image_maximum_gc_age, &mut gc.maximum_age)?;
        match (self.serialize_image_pulls, self.max_parallel_image_pulls) {
            (Some(true), Some(pulls)) if pulls > 1 => {
                let why = "must not be greater than 1 while serializeImagePulls is true";
                return Err(ConfigurationError::invalid("maxParallelImagePulls", why));
            }
            (_, Some(0)) => return Err(ConfigurationError::invalid("maxParallelImagePulls", "must be positive")),
            (Some(true), _) => config.max_parallel_image_pulls = 1,
            (_, Some(pulls)) => config.max_parallel_image_pulls = pulls,
            _ => {}
        }
        Ok(())
    }

    fn apply_eviction(&self, config: &mut Config, warnings: &mut Vec<String>) -> Result<(), ConfigurationError> {
        let maps = Maps {
            hard: self.eviction_hard.as_ref(),
            soft: self.eviction_soft.as_ref(),
            soft_grace: self.eviction_soft_grace_period.as_ref(),
            minimum_reclaim: self.eviction_minimum_reclaim.as_ref(),
            merge_defaults: self.merge_default_eviction_settings.unwrap_or(false),
        };
        let eviction = &mut config.eviction;
        eviction.thresholds = thresholds(&maps, &eviction.thresholds, warnings)?;
        eviction.max_pod_grace_period_seconds = self.eviction_max_pod_grace_period;
        if let Some(isolation) = self.local_storage_capacity_isolation {
            eviction.local_storage_capacity_isolation = isolation;
        }
        let period = &mut eviction.pressure_transition_period;
        set("evictionPressureTransitionPeriod", &self.eviction_pressure_transition_period, period)
    }
}

/// Sets a duration that is not empty or zero.
fn set(field: &'static str, text: &str, target: &mut Duration) -> Result<(), ConfigurationError> {
    if text.is_empty() {
        return Ok(());
    }
    let duration = duration::parse(text).map_err(|why| ConfigurationError::invalid(field, why))?;
    if !duration.is_zero() {
        *target = duration;
    }
    Ok(())
}

fn quantity(field: &'static str, text: &str) -> Result<u64, ConfigurationError> {
    let quantity: Quantity =
        text.parse().map_err(|error| ConfigurationError::invalid(field, format!("{text:?}: {error}")))?;
    u64::try_from(quantity.units())
        .ok()
        .filter(|_| !quantity.is_negative())
        .ok_or_else(|| ConfigurationError::invalid(field, format!("{text} must not be negative")))
}

fn reserved(field: &'static str, amounts: &BTreeMap<String, String>) -> Result<Reserved, ConfigurationError> {
    let mut reserved = Reserved::default();
    for (resource, text) in amounts {
        let units = quantity(field, text)?;
        match resource.as_str() {
            "cpu" => {
                let millis = text.parse::<Quantity>().map_or(0, Quantity::millis);
                reserved.cpu_millis = u64::try_from(millis).unwrap_or(0);
            }
            "memory" => reserved.memory = units,
            "ephemeral-storage" => reserved.ephemeral_storage = units,
            "pid" => reserved.pids = units,
            other => return Err(ConfigurationError::invalid(field, format!("cannot reserve {other:?} resource"))),
        }
    }
    Ok(reserved)
}

/// Whether the cgroup of all pods is limited.
fn enforcement(wanted: &[String]) -> Result<bool, ConfigurationError> {
    let field = "enforceNodeAllocatable";
    if wanted.len() > 1 && wanted.iter().any(|key| key == "none") {
        return Err(ConfigurationError::invalid(
            field,
            "may not contain additional enforcements when none is specified",
        ));
    }
    if let Some(other) = wanted.iter().find(|key| !matches!(key.as_str(), "none" | "pods" | "")) {
        let (field, value) = (field.to_owned(), format!("{other:?}"));
        return Err(ConfigurationError::Unsupported { field, value, supported: "\"pods\" or \"none\"".to_owned() });
    }
    Ok(wanted.iter().any(|key| key == "pods"))
}
