//! AlwaysPullImages: every image is asked for at its registry, so that nobody uses one that only others may pull.
//!
//! Off by default, as upstream.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, FieldError, FieldPath};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::object;

const ALWAYS: &str = "Always";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

#[derive(Debug, Default)]
pub(super) struct AlwaysPullImages;

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("", "pods") && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiStatus> {
        if has_new_image(pod, attributes.old) {
            set_all(pod);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiStatus> {
        match first_other(pod).filter(|_| has_new_image(pod, attributes.old)) {
            None => Ok(()),
            Some(error) => Err(attributes.forbidden(&error.to_string())),
        }
    }
}

/// Whether a pod uses an image that it did not use before.
fn has_new_image(pod: &Value, old: Option<&Value>) -> bool {
    let images = |pod: &Value| -> Vec<Value> {
        LISTS
            .iter()
            .flat_map(|list| object::list(pod, &["spec", list]))
            .map(|container| container["image"].clone())
            .collect()
    };
    let Some(old) = old.map(images) else { return true };
    images(pod).iter().any(|image| !old.contains(image))
}

fn set_all(pod: &mut Value) {
    for list in LISTS {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["imagePullPolicy"] = json!(ALWAYS);
        }
    }
    for volume in pod["spec"].get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image") {
            image["pullPolicy"] = json!(ALWAYS);
        }
    }
}

/// What is wrong with the first image that is not always pulled: somebody changed it after this plugin.
fn first_other(pod: &Value) -> Option<FieldError> {
    let spec = FieldPath::new("spec");
    let check =
        |path: FieldPath, value: &Value| (*value != ALWAYS).then(|| FieldError::not_supported(&path, value, &[ALWAYS]));
    for list in LISTS {
        for (index, container) in object::list(pod, &["spec", list]).iter().enumerate() {
            let path = spec.child(list).index(index).child("imagePullPolicy");
            if let Some(error) = check(path, &container["imagePullPolicy"]) {
                return Some(error);
            }
        }
    }
    for (index, volume) in object::list(pod, &["spec", "volumes"]).iter().enumerate() {
        let path = spec.child("volumes").index(index).child("image").child("pullPolicy");
        if let Some(error) = volume.get("image").and_then(|image| check(path, &image["pullPolicy"])) {
            return Some(error);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_always_pulled() {
        let mut pod = json!({"spec": {"containers": [{"image": "a", "imagePullPolicy": "Never"}],
            "initContainers": [{"image": "b"}], "volumes": [{"name": "v", "image": {"reference": "c"}}, {"name": "w"}]}});
        let before = pod.clone();
        assert_eq!(first_other(&pod).unwrap().field(), "spec.initContainers[0].imagePullPolicy");
        set_all(&mut pod);
        assert!(first_other(&pod).is_none());
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"name": "v", "image": {"reference": "c", "pullPolicy": "Always"}}, {"name": "w"}])
        );
        assert!(has_new_image(&pod, None) && !has_new_image(&pod, Some(&before)));
        pod["spec"]["containers"][0]["image"] = json!("d");
        assert!(has_new_image(&pod, Some(&before)));
    }
}
