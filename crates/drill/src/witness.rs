//! Objects that are written while a cluster is broken and mended: what the API server acknowledged must be there afterwards.
//!
//! Not part of what a drill breaks. Invariant: only what was acknowledged is asked for, and all of it is deleted again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::action::ObjectRef;
use crate::error::Error;
use crate::target::Target;

const NAMESPACE: &str = "default";
const PREFIX: &str = "kedge-drill-witness";
const STAGES: [&str; 3] = ["before", "broken", "repaired"];
/// While the cluster is broken, no answer is an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was acknowledged: stage by stage, the uid that the server gave.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    acknowledged: BTreeMap<&'static str, Value>,
}

impl Witness {
    /// Deletes what a crashed run left.
    pub(crate) async fn begin(target: &Target) -> Result<Self, Error> {
        let api = target.api().await?;
        for stage in STAGES {
            api.delete(&reference(stage)).await?;
        }
        Ok(Self::default())
    }

    /// Writes one object; where that is not acknowledged, nothing is expected.
    pub(crate) async fn write(&mut self, target: &Target, stage: &'static str) {
        let written = async {
            let api = target.api().await?;
            let object = reference(stage);
            let whole = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"stage": stage},
                "metadata": {"name": object.name, "namespace": NAMESPACE}});
            api.create(&whole, PREFIX).await
        };
        if let Ok(Ok(created)) = tokio::time::timeout(PATIENCE, written).await {
            self.acknowledged.insert(stage, created["metadata"]["uid"].clone());
        }
    }

    /// What was acknowledged, and is not there or is not the same. Everything is deleted.
    pub(crate) async fn end(self, target: &Target) -> Result<Vec<String>, Error> {
        let api = target.api().await?;
        let mut lost = Vec::new();
        for (stage, uid) in &self.acknowledged {
            let found = api.get(&reference(stage)).await?.unwrap_or_default();
            lost.extend(told(stage, uid, &found));
        }
        for stage in STAGES {
            api.delete(&reference(stage)).await?;
        }
        Ok(lost)
    }
}

fn reference(stage: &str) -> ObjectRef {
    ObjectRef {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: format!("{PREFIX}-{stage}"),
    }
}

/// How an object differs from the one that was acknowledged.
fn told(stage: &str, uid: &Value, found: &Value) -> Option<String> {
    if found.is_null() {
        return Some(format!("what was written {stage}: gone"));
    }
    let is_same = found["metadata"]["uid"] == *uid && found["data"]["stage"] == stage;
    (!is_same).then(|| format!("what was written {stage}: another is there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_or_another_is_lost() {
        let found = |uid: &str, stage: &str| json!({"metadata": {"uid": uid}, "data": {"stage": stage}});
        let uid = json!("a");
        assert_eq!(told("before", &uid, &found("a", "before")), None);
        assert!(told("before", &uid, &Value::Null).is_some_and(|text| text.contains("gone")));
        for other in [found("b", "before"), found("a", "broken")] {
            assert!(told("before", &uid, &other).is_some_and(|text| text.contains("another")));
        }
    }
}
