//! Brings the objects to what the last look said: findings, their events, and a short history with what was not seen.
//!
//! Where the API server does not serve the kind of findings (its definition may be missing), they are kept beside the history.
//! Invariant: a cluster at rest is only read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kedge_client::Client;
use kedge_diagnosis::Diagnosis;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::changes::{Changes, Memory, past, remembered};
use crate::events::{Events, findings, resource};

/// The ConfigMap with the history.
const HISTORY: &str = "kedge-doctor";
/// Its entry with findings that have no kind of their own.
const FINDINGS: &str = "findings";
const MANAGER: &str = "kedge-doctor";
/// More findings than an instance ever keeps.
const MOST_LISTED: u32 = 500;
const ID_LABEL: &str = "doctor.kedge.dev/id";

/// Of the ConfigMap.
type Data = BTreeMap<String, String>;

/// What one instance knows while it works.
pub(crate) struct Keeper {
    findings: Api<DynamicObject>,
    maps: Api<ConfigMap>,
    events: Events,
    memory: Memory,
}

impl Keeper {
    pub(crate) fn new(client: &Client, namespace: &str, shutdown: CancellationToken) -> Self {
        Self {
            findings: findings(client),
            maps: Api::namespaced(client.clone(), namespace),
            events: Events::new(client.clone(), shutdown),
            memory: Memory::default(),
        }
    }

    /// Keeps what a look found.
    ///
    /// # Errors
    /// Where the API refuses a change; the next look makes it.
    pub(crate) async fn keep(&mut self, diagnosis: &Diagnosis, now: Timestamp) -> Result<(), kube::Error> {
        let present = self.maps.get_opt(HISTORY).await?;
        let data = present.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
        let objects = match self.findings.list(&ListParams::default().limit(MOST_LISTED)).await {
            Ok(list) => list.items,
            Err(error) if is_absent(&error) => {
                return self.keep_beside(present.is_some(), &data, diagnosis, now).await;
            }
            Err(error) => return Err(error),
        };
        let objects: BTreeMap<String, DynamicObject> =
            objects.into_iter().filter_map(|object| Some((object.metadata.name.clone()?, object))).collect();
        let kept = objects.iter().map(|(name, object)| (name.clone(), object.data["report"].clone())).collect();
        let changes = self.memory.plan_changes(diagnosis, &kept, now);
        self.execute(&changes, &objects).await?;
        let new = written(&changes, &kept, &data, diagnosis, now)?;
        self.write(present.is_some(), &data, new).await
    }

    /// The same where there is no such kind: findings are an entry of the ConfigMap, and their events are the same.
    async fn keep_beside(
        &mut self,
        is_there: bool,
        data: &Data,
        diagnosis: &Diagnosis,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let kept: BTreeMap<String, Value> =
            data.get(FINDINGS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let changes = self.memory.plan_changes(diagnosis, &kept, now);
        let mut new = written(&changes, &kept, data, diagnosis, now)?;
        let mut left = kept.clone();
        left.retain(|name, _| !changes.delete.contains(name));
        left.extend(changes.create.iter().chain(&changes.update).cloned());
        new.insert(FINDINGS.to_owned(), text(serde_json::to_string_pretty(&left))?);
        self.write(is_there, data, new).await?;
        for (name, report) in &changes.create {
            self.events.found(&object(name, report), report).await;
        }
        for (name, report) in changes.delete.iter().filter_map(|name| kept.get_key_value(name)) {
            self.events.gone(&object(name, report), report).await;
        }
        Ok(())
    }

    async fn execute(&self, changes: &Changes, objects: &BTreeMap<String, DynamicObject>) -> Result<(), kube::Error> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        for (name, report) in &changes.create {
            match self.findings.create(&params, &object(name, report)).await {
                Ok(made) => self.events.found(&made, report).await,
                // Another instance, which led until now, was faster.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        for (name, report) in &changes.update {
            let patch = Patch::Merge(json!({"report": report}));
            match self.findings.patch(name, &PatchParams::default(), &patch).await {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        for name in &changes.delete {
            match self.findings.delete(name, &DeleteParams::default()).await {
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
            if let Some(finding) = objects.get(name) {
                self.events.gone(finding, &finding.data["report"]).await;
            }
        }
        Ok(())
    }

    /// Writes the ConfigMap where it changed.
    async fn write(&self, is_there: bool, old: &Data, new: Data) -> Result<(), kube::Error> {
        if new == *old {
            return Ok(());
        }
        if is_there {
            let patch = Patch::Merge(json!({"data": changed(old, &new)}));
            return self.maps.patch(HISTORY, &PatchParams::default(), &patch).await.map(drop);
        }
        let metadata = ObjectMeta { name: Some(HISTORY.to_owned()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data: Some(new), ..ConfigMap::default() };
        self.maps.create(&PostParams::default(), &map).await.map(drop)
    }
}

/// What turns the old entries into the new ones: one that is not there any more, as findings once they are objects, goes.
fn changed(old: &Data, new: &Data) -> Value {
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    new.iter().map(|(name, text)| (name.clone(), json!(text))).chain(gone).collect()
}

/// What the ConfigMap says after changes: what is gone, and what was not seen.
fn written(
    changes: &Changes,
    kept: &BTreeMap<String, Value>,
    data: &Data,
    diagnosis: &Diagnosis,
    now: Timestamp,
) -> Result<Data, kube::Error> {
    let gone = changes.delete.iter().filter_map(|name| Some(past(kept.get(name)?, now))).collect();
    let history = data.get("history").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    Ok(BTreeMap::from([
        ("history".to_owned(), text(serde_json::to_string_pretty(&remembered(gone, history)))?),
        ("notSeen".to_owned(), text(serde_json::to_string_pretty(&diagnosis.not_seen))?),
    ]))
}

fn text(written: serde_json::Result<String>) -> Result<String, kube::Error> {
    written.map_err(kube::Error::SerdeError)
}

fn object(name: &str, report: &Value) -> DynamicObject {
    let mut object = DynamicObject::new(name, &resource()).data(json!({"report": report}));
    let id = report["id"].as_str().unwrap_or_default().to_owned();
    object.metadata.labels = Some(BTreeMap::from([(ID_LABEL.to_owned(), id)]));
    object
}

fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_not_kept_any_more_goes() {
        let of = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect::<Data>();
        let (beside, alone) = (of(&["findings", "history"]), of(&["history"]));
        assert_eq!(changed(&beside, &alone), json!({"findings": null, "history": "x"}));
        assert_eq!(changed(&alone, &beside), json!({"findings": "x", "history": "x"}));
    }
}
