//! The file of `--admission-control-config-file`: what plugins are told besides whether they are on.
//!
//! Invariant: what somebody configures and nobody here would follow is an error, and not left out.

use std::collections::BTreeSet;

use kedge_pod_security::Configuration as PodSecurity;
use serde::Deserialize;
use serde_json::Value;

use super::check_plugins;

const API_VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1"];

/// What a file says of plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginConfigurations {
    /// Of PodSecurity.
    pub pod_security: PodSecurity,
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
            all.take(&plugin.name, &configuration).map_err(named)?;
        }
        Ok(all)
    }

    fn take(&mut self, name: &str, configuration: &Value) -> Result<(), String> {
        match name {
            "PodSecurity" => self.pod_security = PodSecurity::read(configuration)?,
            _ => return Err("it takes no configuration here".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(plugins: &str) -> Result<PluginConfigurations, String> {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugins}");
        let file = |path: &str| match path {
            "pods.yaml" => Ok(CONFIGURATION.to_owned()),
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

    #[test]
    fn what_nobody_follows_is_refused() {
        let check = |plugins: &str, why: &str| assert_eq!(read(plugins).unwrap_err(), why);
        check("- name: Nonsense\n", "unknown admission plugin \"Nonsense\"");
        check("- name: PodSecurity\n  path: none\n", "plugin \"PodSecurity\": none is not there");
        check("- name: LimitRanger\n- name: LimitRanger\n", "plugin \"LimitRanger\" is configured twice");
        let webhooks = "- name: ValidatingAdmissionWebhook\n  configuration: {kubeConfigFile: /x}\n";
        check(webhooks, "plugin \"ValidatingAdmissionWebhook\": it takes no configuration here");
        assert!(read("- nam: PodSecurity\n").unwrap_err().contains("unknown field `nam`"));
        let other = PluginConfigurations::read("apiVersion: v1\nkind: Pod\n", &|_| Ok(String::new()));
        assert_eq!(other.unwrap_err(), "no kind \"Pod\" is registered for version \"v1\"");
    }
}
