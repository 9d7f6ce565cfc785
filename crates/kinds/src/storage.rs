//! The kinds of `storage.k8s.io`.

mod capacity;
mod csi;
mod storage_class;
mod volume_attachment;

pub(crate) use csi::driver_name;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "csidrivers" => &csi::CsiDriver,
        "csinodes" => &csi::CsiNode,
        "csistoragecapacities" => &capacity::CsiStorageCapacity,
        "storageclasses" => &storage_class::StorageClass,
        "volumeattachments" => &volume_attachment::VolumeAttachment,
        "volumeattributesclasses" => &storage_class::VolumeAttributesClass,
        _ => &Generic::PLAIN,
    }
}
