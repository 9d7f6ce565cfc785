//! Eviction signals and the thresholds that are set on them, with upstream's names.
//!
//! Pure. Invariant: a signal has one name, one resource, one node condition.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something whose shortage makes the node evict pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Signal {
    /// Memory of the machine.
    #[serde(rename = "memory.available")]
    MemoryAvailable,
    /// Memory of the cgroup of all pods.
    #[serde(rename = "allocatableMemory.available")]
    AllocatableMemoryAvailable,
    /// Space where volumes and logs are.
    #[serde(rename = "nodefs.available")]
    NodefsAvailable,
    /// Inodes where volumes and logs are.
    #[serde(rename = "nodefs.inodesFree")]
    NodefsInodesFree,
    /// Space where the runtime keeps images and writable layers.
    #[serde(rename = "imagefs.available")]
    ImagefsAvailable,
    /// Inodes where the runtime keeps images and writable layers.
    #[serde(rename = "imagefs.inodesFree")]
    ImagefsInodesFree,
    /// Process ids.
    #[serde(rename = "pid.available")]
    PidAvailable,
}

/// What runs short, as messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

/// A pressure that the node reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Pressure {
    Memory,
    Disk,
    Pid,
}

/// An amount, in the signal's unit or as a part of the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Amount {
    /// Bytes, inodes or process ids.
    Bytes(i64),
    /// From 0 to 100.
    Percent(f64),
}

/// When less than this is left, pods go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Threshold {
    /// What is looked at.
    pub signal: Signal,
    /// How much is too little.
    pub value: Amount,
    /// How long it may be too little; zero makes the threshold a hard one.
    pub grace_period: Duration,
    /// How much more than `value` has to be there again before it is enough.
    pub minimum_reclaim: Option<Amount>,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::MemoryAvailable,
        Self::AllocatableMemoryAvailable,
        Self::NodefsAvailable,
        Self::NodefsInodesFree,
        Self::ImagefsAvailable,
        Self::ImagefsInodesFree,
        Self::PidAvailable,
    ];

    /// Upstream's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::AllocatableMemoryAvailable => "allocatableMemory.available",
            Self::NodefsAvailable => "nodefs.available",
            Self::NodefsInodesFree => "nodefs.inodesFree",
            Self::ImagefsAvailable => "imagefs.available",
            Self::ImagefsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// The signal of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Resource::Memory,
            Self::NodefsAvailable | Self::ImagefsAvailable => Resource::EphemeralStorage,
            Self::NodefsInodesFree | Self::ImagefsInodesFree => Resource::Inodes,
            Self::PidAvailable => Resource::Pids,
        }
    }

    pub(crate) fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }
}

impl Resource {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }
}

impl Pressure {
    /// The type of the node's condition.
    pub(crate) fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

impl Amount {
    /// The amount where so much is there in all.
    pub(crate) fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Bytes(amount) => amount,
            // Truncated, as upstream does.
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share of a capacity")]
            Self::Percent(percent) => (capacity as f64 * f64::from(percent as f32 / 100.0)) as i64,
        }
    }
}

impl Threshold {
    /// Whether pods go at once.
    pub(crate) fn is_hard(&self) -> bool {
        self.grace_period.is_zero()
    }

    /// The same threshold, whatever has to be reclaimed.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.signal == other.signal && self.value == other.value && self.grace_period == other.grace_period
    }
}

/// An amount as upstream prints binary amounts: whole, with the largest suffix that divides it.
pub(crate) fn binary(amount: i64) -> String {
    let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut rest = amount;
    let mut index = 0;
    while rest != 0 && rest % 1024 == 0 && index + 1 < suffixes.len() {
        rest /= 1024;
        index += 1;
    }
    format!("{rest}{}", suffixes[index])
}

/// An amount as upstream prints decimal amounts.
pub(crate) fn decimal(amount: i64) -> String {
    let suffixes = ["", "k", "M", "G", "T", "P", "E"];
    let mut rest = amount;
    let mut index = 0;
    while rest != 0 && rest % 1000 == 0 && index + 1 < suffixes.len() {
        rest /= 1000;
        index += 1;
    }
    format!("{rest}{}", suffixes[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_upstreams_names() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_name(signal.name()), Some(signal));
            assert_eq!(serde_json::to_value(signal).unwrap(), signal.name());
        }
        assert_eq!(Signal::from_name("disk.available"), None);
    }

    #[test]
    fn amounts_print_as_upstreams() {
        for (amount, binary_text, decimal_text) in [
            (0, "0", "0"),
            (1023, "1023", "1023"),
            (1024, "1Ki", "1024"),
            (100 << 20, "100Mi", "104857600"),
            (1_500_000, "1500000", "1500k"),
            ((1 << 30) + 1, "1073741825", "1073741825"),
        ] {
            assert_eq!((binary(amount).as_str(), decimal(amount).as_str()), (binary_text, decimal_text));
        }
    }

    #[test]
    fn shares_are_of_the_capacity() {
        for (percent, capacity, expected) in [(10.0, 1000, 100), (5.0, 99, 4), (0.0, 7, 0), (100.0, 7, 7)] {
            assert_eq!(Amount::Percent(percent).of(capacity), expected);
        }
        assert_eq!(Amount::Bytes(5).of(1), 5);
    }
}
