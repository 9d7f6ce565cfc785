//! The configuration of one container: environment, command, mounts, limits and security, from its spec.
//!
//! Invariant: whatever cannot be had is an error with upstream's text, so that the container waits with
//! `CreateContainerConfigError` instead of starting half configured.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Service};
use kedge_cri::{StopSignal, v1};
use kedge_volumes::{
    ContainerVolumes, ImageSource, MountedVolumes, ObjectError, PlannedMounts, container_devices, plan_container_mounts,
};

use crate::agent::Agent;
use crate::device_work;
use crate::env::{self, EnvInput, PodObjects};
use crate::env_checkpoint;
use crate::env_file;
use crate::expand::{expand, expand_strict};
use crate::images::ReadyImage;
use crate::labels;
use crate::network_files;
use crate::outside::OutsideByKey;
use crate::resources;
use crate::security;
use crate::spec;
use crate::stop_signal;

/// What a container is configured from.
pub(crate) struct ContainerInput<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) restart_count: u32,
    pub(crate) image: &'a ReadyImage,
    pub(crate) volumes: &'a MountedVolumes,
    /// By the volume's name.
    pub(crate) image_volumes: &'a BTreeMap<String, ImageSource>,
    pub(crate) pod_ips: &'a [String],
    /// The container whose processes an ephemeral container sees.
    pub(crate) target: Option<String>,
    /// What is under way in volumes.
    pub(crate) sub_paths: &'a SubPaths,
}

/// Sub-paths of a pod's containers that are being bound, by the container's name.
pub(crate) type SubPaths = OutsideByKey<Result<Vec<v1::Mount>, String>>;

/// After this, the container waits and says so; the next attempt waits on.
const SUB_PATH_PATIENCE: Duration = Duration::from_secs(20);

/// What the runtime is asked for.
pub(crate) async fn container_config(agent: &Agent, input: &ContainerInput<'_>) -> Result<v1::ContainerConfig, String> {
    let (pod, container) = (input.pod, input.container);
    let environment = environment(agent, input).await?;
    let lookup = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expanded = |list: &Option<Vec<String>>| list.iter().flatten().map(|text| expand(text, &lookup)).collect();
    let log_directory =
        agent.config.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod)).join(&container.name);
    std::fs::create_dir_all(&log_directory)
        .map_err(|error| format!("create container log directory for container {} failed: {error}", container.name))?;
    let planned = plan_container_mounts(&ContainerVolumes {
        all: &agent.volumes,
        pod,
        container,
        volumes: input.volumes,
        images: input.image_volumes,
        recursive_read_only: agent.recursive_read_only(),
        expand: &|text| expand_strict(text, &lookup),
    })?;
    let mut mounts = bind(input, planned).await?;
    let mut edits = device_work::edits(agent, pod, container).await?;
    mounts.append(&mut edits.mounts);
    mounts.extend(hosts_mount(agent, input, &mounts)?);
    mounts.extend(termination_mount(agent, input)?);
    let seccomp_root = agent.config.root_dir.join("seccomp");
    // The sandbox had its users mapped before, whatever its handler.
    let users = agent.users_of(pod, "")?;
    for mount in &mut mounts {
        mount.uid_mappings.clone_from(&users.uids);
        mount.gid_mappings.clone_from(&users.gids);
    }
    let seccomp_root = seccomp_root.to_string_lossy();
    let mut context = security::container_context(pod, container, &input.image.user, &seccomp_root, users)?;
    if let (Some(target), Some(options)) = (&input.target, context.namespace_options.as_mut()) {
        options.pid = v1::NamespaceMode::Target as i32;
        options.target_id.clone_from(target);
    }
    let mut config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: input.restart_count }),
        image: Some(v1::ImageSpec {
            image: input.image.reference.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        devices: container_devices(container, input.volumes)?,
        mounts,
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, input.restart_count),
        log_path: format!("{}/{}.log", container.name, input.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(agent.cgroups.end_together(resources::container_resources(
                pod,
                container,
                agent.machine.memory_bytes,
            ))),
            security_context: Some(context),
        }),
        stop_signal: stop_signal::of(container).map_or(0, StopSignal::cri),
        ..Default::default()
    };
    device_work::apply(edits, &mut config);
    Ok(config)
}

/// Binds sub-paths beside the threads that others need: a volume's server may be gone.
async fn bind(input: &ContainerInput<'_>, planned: PlannedMounts) -> Result<Vec<v1::Mount>, String> {
    if !planned.may_hang() {
        return planned.bind();
    }
    let hanging = planned.hanging();
    let bound = input.sub_paths.run(&input.container.name, SUB_PATH_PATIENCE, || async { planned.bind() }).await;
    bound.unwrap_or(Err(hanging))
}

/// The environment; where the API server is away, the one that the container had last.
async fn environment(agent: &Agent, input: &ContainerInput<'_>) -> Result<Vec<(String, String)>, String> {
    let checkpoint = env_checkpoint::path(&agent.config, input.pod, &input.container.name);
    let objects = match fetch_objects(agent, input).await {
        Ok(objects) => objects,
        Err(error) if error.is_not_found() => return Err(error.to_string()),
        Err(error) => return env_checkpoint::load(&checkpoint).ok_or_else(|| error.to_string()),
    };
    if !agent.services.is_synced() {
        if let Some(known) = env_checkpoint::load(&checkpoint) {
            return Ok(known);
        }
        if !spec::is_static(input.pod) {
            return Err("services have not yet been read at least once, cannot construct envvars".to_owned());
        }
    }
    let services: Vec<Arc<Service>> = agent.services.list();
    let node = agent.node_facts(input.pod, input.pod_ips);
    let file_key = |volume: &str, path: &str, key: &str| read_file_key(input.volumes, volume, path, key);
    let environment = env::build(&EnvInput {
        pod: input.pod,
        container: input.container,
        objects: &objects,
        services: &services,
        node: &node,
        file_key: &file_key,
    })?;
    if let Err(error) = env_checkpoint::save(&checkpoint, &environment) {
        tracing::warn!(path = %checkpoint.display(), %error, "failed to keep a container's environment for times without an API server");
    }
    Ok(environment)
}

async fn fetch_objects(agent: &Agent, input: &ContainerInput<'_>) -> Result<PodObjects, ObjectError> {
    let (config_maps, secrets) = env::references(input.container);
    let namespace = spec::namespace(input.pod);
    let mut objects = PodObjects::default();
    // A container that starts sees the newest state.
    for name in config_maps {
        match agent.objects.config_map(namespace, &name, Duration::ZERO).await {
            Ok(object) => drop(objects.config_maps.insert(name, object)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    for name in secrets {
        match agent.objects.secret(namespace, &name, Duration::ZERO).await {
            Ok(object) => drop(objects.secrets.insert(name, object)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(objects)
}

/// One key of a file in a volume of the pod, for `fileKeyRef`.
fn read_file_key(volumes: &MountedVolumes, volume: &str, path: &str, key: &str) -> Result<Option<String>, String> {
    let root = volumes.paths.get(volume).ok_or_else(|| format!("cannot find the volume {volume:?}"))?;
    let text = match std::fs::read_to_string(root.join(path)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("couldn't read env file {path:?}: {error}")),
    };
    env_file::value_of(&text, key).map_err(|error| format!("couldn't parse env file {path:?}: {error}"))
}

/// The managed `/etc/hosts`, unless the container brings its own.
fn hosts_mount(agent: &Agent, input: &ContainerInput<'_>, mounts: &[v1::Mount]) -> Result<Option<v1::Mount>, String> {
    const HOSTS: &str = "/etc/hosts";
    let pod = input.pod;
    if mounts.iter().any(|mount| mount.container_path == HOSTS) {
        return Ok(None);
    }
    let aliases = spec::pod_spec(pod).host_aliases.as_deref().unwrap_or_default();
    let text = if spec::host_network(pod) {
        network_files::host_network_hosts_file(&std::fs::read_to_string(HOSTS).unwrap_or_default(), aliases)
    } else {
        let (name, domain) = network_files::hostname_and_domain(pod, &agent.config.cluster_domain);
        network_files::hosts_file(input.pod_ips, &name, &domain, aliases)
    };
    let path = agent.config.pod_dir(spec::uid(pod)).join("etc-hosts");
    std::fs::write(&path, text)
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)))
        .map_err(|error| format!("failed to write {}: {error}", path.display()))?;
    Ok(Some(v1::Mount {
        container_path: HOSTS.to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        ..Default::default()
    }))
}

fn termination_mount(agent: &Agent, input: &ContainerInput<'_>) -> Result<Option<v1::Mount>, String> {
    let target = input.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if target.is_empty() {
        return Ok(None);
    }
    let directory = agent.config.container_dir(spec::uid(input.pod), &input.container.name);
    let path: PathBuf = directory.join(format!("{:08x}", rand::random::<u32>()));
    let made = std::fs::create_dir_all(&directory)
        .and_then(|()| File::create(&path))
        // Any user of the container may write its last words.
        .and_then(|_| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)));
    made.map_err(|error| format!("error on creating termination-log file {:?}: {error}", path.display().to_string()))?;
    Ok(Some(v1::Mount {
        container_path: if target.starts_with('/') { target.to_owned() } else { format!("/{target}") },
        host_path: path.to_string_lossy().into_owned(),
        ..Default::default()
    }))
}
