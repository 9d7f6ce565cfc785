//! The messages of the CRI that have fields newer than the crate `k8s-cri` knows: paths inside images and stop signals.
//!
//! Field numbers are those of the CRI's `api.proto` as of Kubernetes v1.36; parts that did not change are that crate's.
//! Invariant: a runtime that does not know a new field reads the rest as before.

use std::collections::HashMap;

use k8s_cri::v1::{
    CdiDevice, ContainerMetadata, ContainerResources, ContainerState, ContainerUser, Device, IdMapping, ImageSpec,
    KeyValue, LinuxContainerConfig, MountPropagation, PodSandboxConfig, WindowsContainerConfig,
};

/// Something of the node, or an image, that a container sees at a path.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Mount {
    /// Where the container sees it.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// What it is on the node; empty where it is an image.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// Nobody writes through it.
    #[prost(bool, tag = "3")]
    pub readonly: bool,
    /// The runtime labels it for SELinux.
    #[prost(bool, tag = "4")]
    pub selinux_relabel: bool,
    /// A `MountPropagation`.
    #[prost(enumeration = "MountPropagation", tag = "5")]
    pub propagation: i32,
    /// How user ids are mapped on it.
    #[prost(message, repeated, tag = "6")]
    pub uid_mappings: Vec<IdMapping>,
    /// How group ids are mapped on it.
    #[prost(message, repeated, tag = "7")]
    pub gid_mappings: Vec<IdMapping>,
    /// Nobody writes to anything below it.
    #[prost(bool, tag = "8")]
    pub recursive_read_only: bool,
    /// The image that is mounted.
    #[prost(message, optional, tag = "9")]
    pub image: Option<ImageSpec>,
    /// The part of the image, all of it where empty.
    #[prost(string, tag = "10")]
    pub image_sub_path: String,
}

/// What a container is made from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerConfig {
    /// Its name and attempt.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerMetadata>,
    /// Its image.
    #[prost(message, optional, tag = "2")]
    pub image: Option<ImageSpec>,
    /// Replaces the image's entry point.
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    /// The first process's directory.
    #[prost(string, tag = "5")]
    pub working_dir: String,
    /// Its environment.
    #[prost(message, repeated, tag = "6")]
    pub envs: Vec<KeyValue>,
    /// Its mounts.
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<Mount>,
    /// Its devices.
    #[prost(message, repeated, tag = "8")]
    pub devices: Vec<Device>,
    /// By which it can be listed.
    #[prost(map = "string, string", tag = "9")]
    pub labels: HashMap<String, String>,
    /// What the runtime keeps for its client.
    #[prost(map = "string, string", tag = "10")]
    pub annotations: HashMap<String, String>,
    /// The log's file below the sandbox's directory of logs.
    #[prost(string, tag = "11")]
    pub log_path: String,
    /// Standard input is open.
    #[prost(bool, tag = "12")]
    pub stdin: bool,
    /// It closes after the first client.
    #[prost(bool, tag = "13")]
    pub stdin_once: bool,
    /// It has a terminal.
    #[prost(bool, tag = "14")]
    pub tty: bool,
    /// What only Linux has.
    #[prost(message, optional, tag = "15")]
    pub linux: Option<LinuxContainerConfig>,
    /// What only Windows has.
    #[prost(message, optional, tag = "16")]
    pub windows: Option<WindowsContainerConfig>,
    /// Devices by their CDI names.
    #[prost(message, repeated, tag = "17")]
    pub cdi_devices: Vec<CdiDevice>,
    /// The CRI's number of the signal that ends it; 0 leaves it to the runtime. See [`crate::StopSignal`].
    #[prost(int32, tag = "18")]
    pub stop_signal: i32,
}

/// Asks for a container.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pub(crate) pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pub(crate) sandbox_config: Option<PodSandboxConfig>,
}

/// What a runtime says of a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatus {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its name and attempt.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<ContainerMetadata>,
    /// A `ContainerState`.
    #[prost(enumeration = "ContainerState", tag = "3")]
    pub state: i32,
    /// When it was made, in nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// When it was started, 0 where it was not.
    #[prost(int64, tag = "5")]
    pub started_at: i64,
    /// When it ended, 0 where it has not.
    #[prost(int64, tag = "6")]
    pub finished_at: i64,
    /// How it ended.
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    /// Its image, as it was asked for.
    #[prost(message, optional, tag = "8")]
    pub image: Option<ImageSpec>,
    /// Its image, by digest or id.
    #[prost(string, tag = "9")]
    pub image_ref: String,
    /// Why it is in its state, in one word.
    #[prost(string, tag = "10")]
    pub reason: String,
    /// Why it is in its state, in a sentence.
    #[prost(string, tag = "11")]
    pub message: String,
    /// Its labels.
    #[prost(map = "string, string", tag = "12")]
    pub labels: HashMap<String, String>,
    /// Its annotations.
    #[prost(map = "string, string", tag = "13")]
    pub annotations: HashMap<String, String>,
    /// Its mounts.
    #[prost(message, repeated, tag = "14")]
    pub mounts: Vec<Mount>,
    /// Where its log is.
    #[prost(string, tag = "15")]
    pub log_path: String,
    /// Its limits.
    #[prost(message, optional, tag = "16")]
    pub resources: Option<ContainerResources>,
    /// Its image, by id.
    #[prost(string, tag = "17")]
    pub image_id: String,
    /// Whom its first process began as.
    #[prost(message, optional, tag = "18")]
    pub user: Option<ContainerUser>,
    /// The CRI's number of the signal that ends it; 0 where the runtime does not say.
    #[prost(int32, tag = "19")]
    pub stop_signal: i32,
}

/// The answer to a question about a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatusResponse {
    /// Its status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
    /// What else the runtime tells where it is asked for everything.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1;
    use prost::Message;

    use super::*;

    #[test]
    fn an_older_runtime_reads_the_rest() {
        let mount = Mount {
            container_path: "/c".to_owned(),
            host_path: "/h".to_owned(),
            propagation: v1::MountPropagation::PropagationBidirectional as i32,
            uid_mappings: vec![IdMapping { host_id: 65536, container_id: 0, length: 65536 }],
            recursive_read_only: true,
            image: Some(ImageSpec { image: "i".to_owned(), ..ImageSpec::default() }),
            image_sub_path: "etc".to_owned(),
            ..Mount::default()
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 1 }),
            command: vec!["sh".to_owned()],
            envs: vec![KeyValue { key: "K".to_owned(), value: "v".to_owned() }],
            mounts: vec![mount],
            labels: [("l".to_owned(), "x".to_owned())].into(),
            tty: true,
            stop_signal: 29,
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: "s".to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(PodSandboxConfig { hostname: "h".to_owned(), ..PodSandboxConfig::default() }),
        };
        let older = v1::CreateContainerRequest::decode(request.encode_to_vec().as_slice()).unwrap();
        let read = older.config.unwrap();
        assert_eq!((read.metadata, read.command, read.envs), (config.metadata, config.command, config.envs));
        assert_eq!((read.labels, read.tty), (config.labels, true));
        let (read, sent) = (&read.mounts[0], &config.mounts[0]);
        assert_eq!((&read.container_path, &read.host_path), (&sent.container_path, &sent.host_path));
        assert_eq!((&read.uid_mappings, &read.image), (&sent.uid_mappings, &sent.image));
        assert_eq!((read.propagation, read.recursive_read_only), (sent.propagation, true));
        assert_eq!(older.sandbox_config, request.sandbox_config);
    }

    #[test]
    fn the_status_of_an_older_runtime_is_read() {
        let older = v1::ContainerStatus {
            id: "c".to_owned(),
            state: v1::ContainerState::ContainerExited as i32,
            finished_at: 3,
            exit_code: 7,
            mounts: vec![v1::Mount { host_path: "/h".to_owned(), ..v1::Mount::default() }],
            image_id: "sha256:1".to_owned(),
            ..v1::ContainerStatus::default()
        };
        let answer =
            v1::ContainerStatusResponse { status: Some(older), info: [("k".to_owned(), "v".to_owned())].into() };
        let read = ContainerStatusResponse::decode(answer.encode_to_vec().as_slice()).unwrap();
        let status = read.status.unwrap();
        assert_eq!((status.id.as_str(), status.exit_code, status.finished_at, status.stop_signal), ("c", 7, 3, 0));
        assert_eq!((status.mounts[0].host_path.as_str(), status.image_id.as_str()), ("/h", "sha256:1"));
        assert_eq!(read.info["k"], "v");
    }
}
