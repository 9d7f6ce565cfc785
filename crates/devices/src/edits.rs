//! What devices change about a container.

use std::collections::BTreeMap;

use kedge_cri::v1;

use crate::v1::ContainerAllocateResponse;

/// Changes of a container's configuration.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Edits {
    /// Variables; they win over those of the container's image, not over those of its spec.
    pub envs: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<v1::Mount>,
    /// Device nodes.
    pub devices: Vec<v1::Device>,
    /// For the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Devices by their CDI names, for a runtime that knows what to do with them.
    pub cdi_devices: Vec<String>,
    /// Groups that the container's processes are in.
    pub groups: Vec<i64>,
}

impl Edits {
    /// Adds what another device wants; of two that want the same, the first one has it.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, value) in other.envs {
            self.envs.entry(name).or_insert(value);
        }
        for mount in other.mounts {
            if !self.mounts.iter().any(|known| known.container_path == mount.container_path) {
                self.mounts.push(mount);
            }
        }
        for device in other.devices {
            if !self.devices.iter().any(|known| known.container_path == device.container_path) {
                self.devices.push(device);
            }
        }
        for (name, value) in other.annotations {
            self.annotations.entry(name).or_insert(value);
        }
        let cdi: Vec<String> = other.cdi_devices.into_iter().filter(|id| !self.cdi_devices.contains(id)).collect();
        self.cdi_devices.extend(cdi);
        let groups: Vec<i64> = other.groups.into_iter().filter(|group| !self.groups.contains(group)).collect();
        self.groups.extend(groups);
    }

    /// What a device plug-in answered.
    pub(crate) fn of_plugin(answer: &ContainerAllocateResponse) -> Self {
        Self {
            envs: answer.envs.clone().into_iter().collect(),
            mounts: answer
                .mounts
                .iter()
                .map(|mount| v1::Mount {
                    container_path: mount.container_path.clone(),
                    host_path: mount.host_path.clone(),
                    readonly: mount.read_only,
                    ..v1::Mount::default()
                })
                .collect(),
            devices: answer
                .devices
                .iter()
                .map(|device| v1::Device {
                    container_path: device.container_path.clone(),
                    host_path: device.host_path.clone(),
                    permissions: device.permissions.clone(),
                })
                .collect(),
            annotations: answer.annotations.clone().into_iter().collect(),
            cdi_devices: answer.cdi_devices.iter().map(|device| device.name.clone()).collect(),
            groups: Vec::new(),
        }
    }
}
