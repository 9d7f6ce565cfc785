//! The environment of a container.
//!
//! Pure: the objects that are referred to were fetched before. Invariant: a later source wins over an earlier one, and the
//! container's own `env` over all; service variables are the weakest.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

use crate::expand::expand;
use crate::field_ref::{self, NodeFacts};
use crate::spec;

/// ConfigMaps and Secrets that a pod refers to, by name; one that does not exist is absent.
#[derive(Debug, Default, Clone)]
pub(crate) struct PodObjects {
    pub(crate) config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Arc<Secret>>,
}

/// The names of the objects that a container's environment needs: ConfigMaps, then Secrets.
pub(crate) fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for source in container.env_from.as_deref().unwrap_or_default() {
        config_maps.extend(source.config_map_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
    }
    (config_maps, secrets)
}

/// Finds the value of a key (third) in a file (second) of a volume (first).
pub(crate) type FileKey<'a> = dyn Fn(&str, &str, &str) -> Result<Option<String>, String> + 'a;

/// Everything that an environment is made of.
pub(crate) struct EnvInput<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) objects: &'a PodObjects,
    pub(crate) services: &'a [Arc<Service>],
    pub(crate) node: &'a NodeFacts,
    /// Reads a key of a file in one of the pod's volumes: volume, path, key.
    pub(crate) file_key: &'a FileKey<'a>,
}

/// The variables in the order in which they were first set.
pub(crate) fn build(input: &EnvInput<'_>) -> Result<Vec<(String, String)>, String> {
    let mut variables = Variables::default();
    add_sources(input, &mut variables)?;
    let services = service_variables(input);
    for variable in input.container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                let lookup = |name: &str| variables.get(name).or_else(|| services.get(name)).cloned();
                Some(expand(value, &lookup))
            }
            (_, Some(source)) => from_source(input, source)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            variables.set(&variable.name, value);
        }
    }
    for (name, value) in services {
        if variables.get(&name).is_none() {
            variables.set(&name, value);
        }
    }
    Ok(variables.ordered)
}

#[derive(Default)]
struct Variables {
    ordered: Vec<(String, String)>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<&String> {
        self.ordered.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn set(&mut self, name: &str, value: String) {
        match self.ordered.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => self.ordered.push((name.to_owned(), value)),
        }
    }
}

fn add_sources(input: &EnvInput<'_>, variables: &mut Variables) -> Result<(), String> {
    for source in input.container.env_from.as_deref().unwrap_or_default() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match input.objects.config_maps.get(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        variables.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional.unwrap_or(false) => {}
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match input.objects.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        variables.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if reference.optional.unwrap_or(false) => {}
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        }
    }
    Ok(())
}

fn from_source(input: &EnvInput<'_>, source: &EnvVarSource) -> Result<Option<String>, String> {
    let namespace = spec::namespace(input.pod);
    if let Some(field) = &source.field_ref {
        return field_ref::field_value(input.pod, &field.field_path, input.node).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return field_ref::resource_value(input.pod, &input.container.name, resource, input.node).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let Some(map) = input.objects.config_maps.get(&reference.name) else {
            return missing(optional, format!("configmap \"{}\" not found", reference.name));
        };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned();
        let text = || format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name);
        return value.map_or_else(|| missing(optional, text()), |value| Ok(Some(value)));
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let Some(secret) = input.objects.secrets.get(&reference.name) else {
            return missing(optional, format!("secret \"{}\" not found", reference.name));
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        let text = || format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name);
        return value.map_or_else(|| missing(optional, text()), |value| Ok(Some(value)));
    }
    if let Some(reference) = &source.file_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let value = (input.file_key)(&reference.volume_name, &reference.path, &reference.key)?;
        let text = || format!("environment variable key {:?} not found in file {:?}", reference.key, reference.path);
        return value.map_or_else(|| missing(optional, text()), |value| Ok(Some(value)));
    }
    Ok(Some(String::new()))
}

fn missing(optional: bool, text: String) -> Result<Option<String>, String> {
    if optional { Ok(None) } else { Err(text) }
}

/// `REDIS_SERVICE_HOST` and its like, for the services of the pod's namespace and the API server.
fn service_variables(input: &EnvInput<'_>) -> BTreeMap<String, String> {
    let links = spec::pod_spec(input.pod).enable_service_links.unwrap_or(true);
    let namespace = spec::namespace(input.pod);
    let mut variables = BTreeMap::new();
    let is = |service: &Service, wanted: &str| service.metadata.namespace.as_deref() == Some(wanted);
    let name = |service: &Service| service.metadata.name.clone().unwrap_or_default();
    // The API server is always linked; a service of the pod's own namespace may take its name.
    for service in input.services.iter().filter(|service| is(service, "default") && name(service) == "kubernetes") {
        add_service(service, "kubernetes", &mut variables);
    }
    for service in input.services.iter().filter(|service| links && is(service, namespace)) {
        add_service(service, &name(service), &mut variables);
    }
    variables
}

fn add_service(service: &Service, name: &str, variables: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ip.is_empty() || ip == "None" || ports.is_empty() {
        return;
    }
    let prefix = name.to_uppercase().replace('-', "_");
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let mut set = |suffix: String, value: String| variables.insert(format!("{prefix}_{suffix}"), value);
    set("SERVICE_HOST".to_owned(), ip.to_owned());
    set("SERVICE_PORT".to_owned(), ports[0].port.to_string());
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(format!("SERVICE_PORT_{}", port_name.to_uppercase().replace('-', "_")), port.port.to_string());
        }
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            set("PORT".to_owned(), url.clone());
        }
        let base = format!("PORT_{}_{protocol}", port.port);
        set(base.clone(), url);
        set(format!("{base}_PROTO"), protocol.to_lowercase());
        set(format!("{base}_PORT"), port.port.to_string());
        set(format!("{base}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        ConfigMapEnvSource, ConfigMapKeySelector, EnvFromSource, EnvVar, ObjectFieldSelector, SecretKeySelector,
        ServicePort, ServiceSpec,
    };

    use super::*;

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".to_owned());
        pod.metadata.namespace = Some("shop".to_owned());
        pod
    }

    fn objects() -> PodObjects {
        let map = ConfigMap {
            data: Some([("MODE".to_owned(), "fast".to_owned()), ("LEVEL".to_owned(), "1".to_owned())].into()),
            ..ConfigMap::default()
        };
        PodObjects { config_maps: [("settings".to_owned(), Arc::new(map))].into(), secrets: BTreeMap::new() }
    }

    fn plain(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
    }

    fn sourced(name: &str, source: EnvVarSource) -> EnvVar {
        EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
    }

    fn build_with(container: &Container, services: &[Arc<Service>]) -> Result<Vec<(String, String)>, String> {
        build(&EnvInput {
            pod: &pod(),
            container,
            objects: &objects(),
            services,
            node: &NodeFacts::default(),
            file_key: &|_, _, _| Ok(None),
        })
    }

    fn text(variables: &[(String, String)]) -> String {
        variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn later_sources_win_and_references_see_what_came_before() {
        let from = EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource { name: "settings".to_owned(), optional: None }),
            prefix: Some("APP_".to_owned()),
            secret_ref: None,
        };
        let name = EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: "metadata.name".to_owned(), api_version: None }),
            ..EnvVarSource::default()
        };
        let container = Container {
            env_from: Some(vec![from]),
            env: Some(vec![
                sourced("POD", name),
                plain("URL", "http://$(POD)/$(APP_MODE)/$(LATER)"),
                plain("LATER", "x"),
                plain("APP_LEVEL", "2"),
            ]),
            ..Container::default()
        };
        let got = build_with(&container, &[]).unwrap();
        assert_eq!(text(&got), "APP_LEVEL=2 APP_MODE=fast POD=web URL=http://web/fast/$(LATER) LATER=x");
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let map = |name: &str, key: &str, optional: bool| EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: name.to_owned(),
                key: key.to_owned(),
                optional: Some(optional),
            }),
            ..EnvVarSource::default()
        };
        let secret = EnvVarSource {
            secret_key_ref: Some(SecretKeySelector { name: "gone".to_owned(), key: "k".to_owned(), optional: None }),
            ..EnvVarSource::default()
        };
        let check = |source: EnvVarSource, expected: Result<&str, &str>| {
            let container = Container { env: Some(vec![sourced("A", source)]), ..Container::default() };
            let got = build_with(&container, &[]).map(|variables| text(&variables));
            assert_eq!(got.as_deref().map_err(String::as_str), expected);
        };
        check(map("settings", "MODE", false), Ok("A=fast"));
        check(map("settings", "none", false), Err("couldn't find key none in ConfigMap shop/settings"));
        check(map("settings", "none", true), Ok(""));
        check(map("gone", "k", false), Err("configmap \"gone\" not found"));
        check(secret, Err("secret \"gone\" not found"));
    }

    #[test]
    fn services_of_the_namespace_and_the_api_server_are_linked() {
        let service = |namespace: &str, name: &str, ip: &str| {
            let mut service = Service::default();
            service.metadata.namespace = Some(namespace.to_owned());
            service.metadata.name = Some(name.to_owned());
            let port = ServicePort { name: Some("http".to_owned()), port: 80, ..ServicePort::default() };
            service.spec = Some(ServiceSpec {
                cluster_ip: Some(ip.to_owned()),
                ports: Some(vec![port]),
                ..ServiceSpec::default()
            });
            Arc::new(service)
        };
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("shop", "my-db", "10.96.0.2"),
            service("shop", "headless", "None"),
            service("other", "far", "10.96.0.3"),
        ];
        let got = build_with(&Container::default(), &services).unwrap();
        let names: Vec<&str> = got.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"KUBERNETES_SERVICE_HOST"));
        assert!(!names.iter().any(|name| name.starts_with("FAR") || name.starts_with("HEADLESS")));
        let find = |wanted: &str| got.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        assert_eq!(find("MY_DB_SERVICE_PORT_HTTP"), Some("80"));
        assert_eq!(find("MY_DB_PORT"), Some("tcp://10.96.0.2:80"));
        assert_eq!(find("MY_DB_PORT_80_TCP_ADDR"), Some("10.96.0.2"));
    }
}
