//! When a device was tainted: a taint that does not say it gets the time at which it came.
//!
//! Upstream's defaults do this; here defaults know no time. Invariant: every taint of a device has a time, from which
//! tolerations count.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, format_time};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object;

const GROUP: &str = "resource.k8s.io";
const TIME: &str = "timeAdded";

#[derive(Debug, Default)]
pub(super) struct DeviceTaintTimes;

#[async_trait]
impl Plugin for DeviceTaintTimes {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && (attributes.is_main(GROUP, "resourceslices") || attributes.is_main(GROUP, "devicetaintrules"))
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        fill(object, &format_time(attributes.core.clock.now()));
        Ok(())
    }
}

fn fill(object: &mut Value, now: &str) {
    let Some(spec) = object.get_mut("spec") else { return };
    if let Some(taint) = spec.get_mut("taint") {
        fill_one(taint, now);
    }
    for device in spec.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten() {
        // v1beta1 keeps what devices are in a field of its own.
        let device = match device.get("basic") {
            Some(_) => &mut device["basic"],
            None => device,
        };
        let taints = device.get_mut("taints").and_then(Value::as_array_mut);
        taints.into_iter().flatten().for_each(|taint| fill_one(taint, now));
    }
}

fn fill_one(taint: &mut Value, now: &str) {
    if object::text(taint, &[TIME]).is_empty()
        && let Some(fields) = taint.as_object_mut()
    {
        fields.insert(TIME.to_owned(), now.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn taints_without_a_time_get_it() {
        let check = |spec: Value, path: &str, expected: &str| {
            let mut object = json!({"spec": spec});
            fill(&mut object, "now");
            assert_eq!(object.pointer(path).unwrap(), expected, "{object}");
        };
        let taint = || json!({"key": "broken", "effect": "NoExecute"});
        check(json!({"devices": [{"name": "a"}, {"taints": [taint()]}]}), "/spec/devices/1/taints/0/timeAdded", "now");
        check(
            json!({"devices": [{"basic": {"taints": [taint()]}}]}),
            "/spec/devices/0/basic/taints/0/timeAdded",
            "now",
        );
        check(json!({"devices": [{"taints": [{"timeAdded": "once"}]}]}), "/spec/devices/0/taints/0/timeAdded", "once");
        check(json!({"taint": taint()}), "/spec/taint/timeAdded", "now");
    }
}
