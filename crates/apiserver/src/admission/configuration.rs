//! The file of `--admission-control-config-file`: what plugins are told besides whether they are on.
//!
//! Invariant: what somebody configures and nobody here would follow is an error, and not left out.

use std::collections::BTreeSet;
use std::path::Path;

use kedge_pod_security::Configuration as PodSecurity;
use kedge_webhooks::Credentials;
use serde::Deserialize;
use serde_json::Value;

use super::check_plugins;
use super::webhooks::{MUTATING, VALIDATING, WebhookCredentials};

const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1"];

/// What a file says of plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginConfigurations {
    /// Of PodSecurity.
    pub pod_security: PodSecurity,
    /// Of MutatingAdmissionWebhook and ValidatingAdmissionWebhook.
    pub webhook_credentials: WebhookCredentials,
}

/// What is said of webhooks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WebhookAdmission {
    api_version: String,
    kind: String,
    #[serde(default)]
    kube_config_file: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    path: String,
    configuration: Option<Value>,
}

impl PluginConfigurations {
    /// Reads an AdmissionConfiguration; `file` gives the text of another one that it names by its path, which may be relative
    /// to this one's place.
    pub fn read(text: &str, file: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        let document: Document = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        if document.kind != "AdmissionConfiguration" || !API_VERSIONS.contains(&&*document.api_version) {
            let Document { kind, api_version, .. } = document;
            return Err(format!("no kind \"{kind}\" is registered for version \"{api_version}\""));
        }
        let (mut all, mut seen) = (Self::default(), BTreeSet::new());
        for plugin in document.plugins {
            check_plugins(std::slice::from_ref(&plugin.name)).map_err(|error| error.to_string())?;
            if !seen.insert(plugin.name.clone()) {
                return Err(format!("plugin \"{}\" is configured twice", plugin.name));
            }
            let named = |why: String| format!("plugin \"{}\": {why}", plugin.name);
            let configuration = match (plugin.configuration, plugin.path.as_str()) {
                (Some(configuration), _) => configuration,
                (None, "") => continue,
                (None, path) => {
                    let text = file(path).map_err(named)?;
                    serde_yaml::from_str(&text).map_err(|error| named(error.to_string()))?
                }
            };
            all.take(&plugin.name, configuration, file).map_err(named)?;
        }
        Ok(all)
    }

    fn take(
        &mut self,
        name: &str,
        configuration: Value,
        file: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<(), String> {
        match name {
            "PodSecurity" => self.pod_security = PodSecurity::read(&configuration)?,
            MUTATING => self.webhook_credentials.mutating = read_credentials(configuration, file)?,
            VALIDATING => self.webhook_credentials.validating = read_credentials(configuration, file)?,
            _ => return Err("it takes no configuration here".to_owned()),
        }
        Ok(())
    }
}

fn read_credentials(
    configuration: Value,
    file: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Credentials, String> {
    let said: WebhookAdmission = serde_json::from_value(configuration).map_err(|error| error.to_string())?;
    let WebhookAdmission { api_version, kind, kube_config_file: path } = said;
    if kind != "WebhookAdmission" || !API_VERSIONS.contains(&&*api_version) {
        return Err(format!("no kind \"{kind}\" is registered for version \"{api_version}\""));
    }
    if path.is_empty() {
        return Ok(Credentials::default());
    }
    if !path.starts_with('/') {
        return Err(format!("kubeConfigFile: Invalid value: \"{path}\": must be an absolute file path"));
    }
    let folder = Path::new(&path).parent().unwrap_or(Path::new("/"));
    Credentials::read(&file(&path)?, folder).map_err(|why| format!("{path}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(plugins: &str) -> Result<PluginConfigurations, String> {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugins}");
        let file = |path: &str| match path {
            "pods.yaml" => Ok(CONFIGURATION.to_owned()),
            "/etc/hooks.conf" => Ok("users: [{name: '*', user: {token: t}}]".to_owned()),
            "/etc/bad.conf" => Ok("users: [{name: '*', user: {client-key: k}}]".to_owned()),
            path => Err(format!("{path} is not there")),
        };
        PluginConfigurations::read(&text, &file)
    }

    const CONFIGURATION: &str = "{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, \
                                 defaults: {enforce: baseline}, exemptions: {namespaces: [kube-system]}}";

    #[test]
    fn plugins_are_configured_in_place_or_in_files() {
        let inline = read(&format!("- name: PodSecurity\n  configuration: {CONFIGURATION}\n")).unwrap();
        assert_eq!(inline.pod_security.defaults.enforce.to_string(), "baseline:latest");
        assert_eq!(inline.pod_security.exemptions.namespaces, ["kube-system"]);
        assert_eq!(read("- name: PodSecurity\n  path: pods.yaml\n"), Ok(inline));
        assert_eq!(read("- name: LimitRanger\n"), Ok(PluginConfigurations::default()));
    }

    const WEBHOOK: &str = "apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmission";

    #[test]
    fn webhooks_get_credentials_of_their_own() {
        let credentials = |more: &str| {
            read(&format!("- name: MutatingAdmissionWebhook\n  configuration: {{{WEBHOOK}{more}}}\n"))
                .unwrap()
                .webhook_credentials
        };
        let read = credentials(", kubeConfigFile: /etc/hooks.conf");
        assert_ne!(read.mutating, Credentials::default());
        assert_eq!(read.validating, Credentials::default());
        assert_eq!(credentials(""), WebhookCredentials::default());
    }

    #[test]
    fn what_nobody_follows_is_refused() {
        let check = |plugins: &str, why: &str| assert_eq!(read(plugins).unwrap_err(), why);
        check("- name: Nonsense\n", "unknown admission plugin \"Nonsense\"");
        check("- name: PodSecurity\n  path: none\n", "plugin \"PodSecurity\": none is not there");
        check("- name: LimitRanger\n- name: LimitRanger\n", "plugin \"LimitRanger\" is configured twice");
        check(
            "- name: ResourceQuota\n  configuration: {limitedResources: []}\n",
            "plugin \"ResourceQuota\": it takes no configuration here",
        );
        let webhook = |path: &str, why: &str| {
            let plugin = "- name: ValidatingAdmissionWebhook";
            check(
                &format!("{plugin}\n  configuration: {{{WEBHOOK}, kubeConfigFile: {path}}}\n"),
                &format!("plugin \"ValidatingAdmissionWebhook\": {why}"),
            );
        };
        webhook("here", "kubeConfigFile: Invalid value: \"here\": must be an absolute file path");
        webhook("/etc/none", "/etc/none is not there");
        webhook("/etc/bad.conf", "/etc/bad.conf: user \"*\": a client certificate and its key go together");
        assert!(read("- nam: PodSecurity\n").unwrap_err().contains("unknown field `nam`"));
        let other = PluginConfigurations::read("apiVersion: v1\nkind: Pod\n", &|_| Ok(String::new()));
        assert_eq!(other.unwrap_err(), "no kind \"Pod\" is registered for version \"v1\"");
    }
}
