//! What a file says to `kedge join`, and the flags beside it.
//!
//! Invariant: flags win over the file.

use std::path::PathBuf;

use serde_json::Value;

use super::configuration::JoinConfiguration;
use super::settings::{JoinFlags, wrong};
use crate::documents::{ConfigurationError, Documents};

/// The document of the file, and what in the file has no effect.
pub(super) fn read_file(flags: &JoinFlags) -> Result<(JoinConfiguration, Vec<String>), ConfigurationError> {
    let Some(path) = &flags.config else { return Ok((JoinConfiguration::default(), Vec::new())) };
    let text = std::fs::read_to_string(path);
    let documents = Documents::read(&text.map_err(|error| wrong("--config", format!("{}: {error}", path.display())))?)?;
    let file = documents.join.ok_or_else(|| wrong("--config", "no JoinConfiguration found in the supplied config"))?;
    let others = documents.kinds.into_iter().filter(|kind| kind != "JoinConfiguration");
    let without_effect = file.without_effect().into_iter().chain(others).collect();
    Ok((file, without_effect))
}

/// Flags win over the file.
pub(super) fn merged(mut flags: JoinFlags, file: &JoinConfiguration) -> Result<JoinFlags, ConfigurationError> {
    let by_token = file.discovery.bootstrap_token.as_ref();
    let token = |field: &str, text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| wrong(field, format!("{text:?} is no token"))),
    };
    if let Some(found) = by_token.filter(|_| flags.discovery_file.is_none() && flags.token.is_none()) {
        flags.discovery_token = flags.discovery_token.or(token("discovery.bootstrapToken.token", &found.token)?);
    }
    if let Some(found) = by_token {
        flags.endpoint = flags.endpoint.or_else(|| text(&found.api_server_endpoint));
        if flags.discovery_token_ca_cert_hash.is_empty() {
            flags.discovery_token_ca_cert_hash.clone_from(&found.ca_cert_hashes);
        }
        flags.discovery_token_unsafe_skip_ca_verification |= found.unsafe_skip_ca_verification;
    }
    let path = file.discovery.file.as_ref().and_then(|file| text(&file.kube_config_path));
    if flags.token.is_none() {
        flags.discovery_file = flags.discovery_file.or(path.map(PathBuf::from));
    }
    let tls = token("discovery.tlsBootstrapToken", &file.discovery.tls_bootstrap_token)?;
    flags.tls_bootstrap_token =
        flags.tls_bootstrap_token.or(flags.token.clone()).or(tls).or_else(|| flags.discovery_token.clone());
    let registration = &file.node_registration;
    flags.node_name = flags.node_name.or_else(|| text(&registration.name));
    flags.cri_socket = flags.cri_socket.or_else(|| text(&registration.cri_socket));
    flags.ignore_preflight_errors.extend(registration.ignore_preflight_errors.iter().cloned());
    if flags.skip_phases.is_empty() {
        flags.skip_phases.clone_from(&file.skip_phases);
    }
    flags.dry_run |= file.dry_run;
    flags.patches = flags.patches.or_else(|| file.patches.directory());
    merge_control_plane(flags, file)
}

fn merge_control_plane(mut flags: JoinFlags, file: &JoinConfiguration) -> Result<JoinFlags, ConfigurationError> {
    let Some(found) = &file.control_plane else { return Ok(flags) };
    flags.control_plane = true;
    let key = |text: String| text.parse().map_err(|error| wrong("controlPlane.certificateKey", format!("{error}")));
    if flags.certificate_key.is_none() {
        flags.certificate_key = text(&found.certificate_key).map(key).transpose()?;
    }
    let local = &found.local_api_endpoint;
    let address = |text: String| {
        let field = "controlPlane.localAPIEndpoint.advertiseAddress";
        text.parse().map_err(|_| wrong(field, format!("{text:?} is no address")))
    };
    if flags.node_ip.is_none() {
        flags.node_ip = text(&local.advertise_address).map(address).transpose()?;
    }
    flags.apiserver_bind_port = flags.apiserver_bind_port.or((local.bind_port != 0).then_some(local.bind_port));
    Ok(flags)
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// A taint as the kubelet's flag has it.
pub(super) fn taint_text(taint: &Value) -> Result<String, ConfigurationError> {
    let field = |name: &str| taint[name].as_str().unwrap_or_default();
    match (field("key"), field("value"), field("effect")) {
        ("", ..) | (.., "") => Err(wrong("nodeRegistration.taints", format!("{taint} has no key, or no effect"))),
        (key, "", effect) => Ok(format!("{key}:{effect}")),
        (key, value, effect) => Ok(format!("{key}={value}:{effect}")),
    }
}
