//! How full a CSI volume is, as its driver says.
//!
//! Other volumes are asked nothing here: their file system tells whoever looks. Invariant: a driver that cannot say it is
//! not asked, and what it leaves out stays unknown.

use std::path::Path;

use kedge_csi::v1;

use crate::csi::record;
use crate::set_up::Volumes;

/// `VolumeUsage.Unit` of the protocol.
const BYTES: i32 = 1;
const INODES: i32 = 2;

/// What a driver says; nothing where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Bytes left.
    pub available_bytes: Option<u64>,
    /// Bytes in all.
    pub capacity_bytes: Option<u64>,
    /// Bytes taken.
    pub used_bytes: Option<u64>,
    /// Inodes left.
    pub inodes_free: Option<u64>,
    /// Inodes in all.
    pub inodes: Option<u64>,
    /// Inodes taken.
    pub inodes_used: Option<u64>,
}

impl VolumeUsage {
    fn read(answer: &v1::NodeGetVolumeStatsResponse) -> Result<Self, String> {
        let mut read = Self::default();
        // Nothing is never negative.
        let amount = |number: i64| u64::try_from(number).ok();
        for usage in &answer.usage {
            match usage.unit {
                BYTES => {
                    read.available_bytes = amount(usage.available);
                    read.capacity_bytes = amount(usage.total);
                    read.used_bytes = amount(usage.used);
                }
                INODES => {
                    read.inodes_free = amount(usage.available);
                    read.inodes = amount(usage.total);
                    read.inodes_used = amount(usage.used);
                }
                other => return Err(format!("unknown key {other} in usage")),
            }
        }
        Ok(read)
    }
}

impl Volumes {
    /// How full the volume at a path of [`crate::MountedVolumes`] is, as its driver says. `None` where no driver made the
    /// volume.
    ///
    /// A driver that does not know, or does not answer, is an error.
    pub async fn usage_by_driver(&self, path: &Path) -> Option<Result<VolumeUsage, String>> {
        let record = record::load(path.parent()?).ok()??;
        let registered = match self.csi.drivers.get(&record.driver_name) {
            Ok(registered) => registered,
            Err(error) => return Some(Err(error)),
        };
        let ask = async {
            let capabilities = registered.capabilities().await.map_err(|error| error.to_string())?;
            if !capabilities.stats {
                return Err(format!("metrics are not supported for {}", record.driver_name));
            }
            let answer = registered.driver.stats(&record.volume_handle, path).await;
            VolumeUsage::read(&answer.map_err(|error| error.to_string())?)
        };
        Some(ask.await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(usage: &[(i64, i64, i64, i32)]) -> v1::NodeGetVolumeStatsResponse {
        let usage =
            usage.iter().map(|&(available, total, used, unit)| v1::VolumeUsage { available, total, used, unit });
        v1::NodeGetVolumeStatsResponse { usage: usage.collect(), volume_condition: None }
    }

    #[test]
    fn units_are_told_apart() {
        let read = VolumeUsage::read(&answer(&[(1, 3, 2, BYTES), (10, 30, 20, INODES)])).unwrap();
        let expected = VolumeUsage {
            available_bytes: Some(1),
            capacity_bytes: Some(3),
            used_bytes: Some(2),
            inodes_free: Some(10),
            inodes: Some(30),
            inodes_used: Some(20),
        };
        assert_eq!(read, expected);
        let only_bytes = VolumeUsage::read(&answer(&[(-1, 3, 2, BYTES)])).unwrap();
        assert_eq!((only_bytes.available_bytes, only_bytes.inodes), (None, None));
        assert_eq!(VolumeUsage::read(&answer(&[(1, 3, 2, 0)])), Err("unknown key 0 in usage".to_owned()));
    }
}
