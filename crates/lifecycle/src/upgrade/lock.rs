//! One machine of a cluster at a time: a ConfigMap says who is being upgraded.
//!
//! No Lease, because kubelets, as which workers come, may have none but their own. Invariant: the record is only ever
//! replaced as the version that was read, so that two machines never both hold it; one whose holder has not renewed it for
//! a while is anybody's.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kedge_client::Client;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster_objects::apply_objects;
use crate::init::{PhaseError, failed};

/// The ConfigMap's name.
pub(super) const NAME: &str = "kedge-upgrade";
const NAMESPACE: &str = "kube-system";
const ROLE: &str = "kedge:upgrade-lock";
const LASTS: SignedDuration = SignedDuration::from_secs(120);
const RENEWAL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(2);
const TRIES: u32 = 5;

/// Who is being upgraded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    holder: String,
    version: String,
    acquired: Timestamp,
    renewed: Timestamp,
}

impl Record {
    fn read(map: &ConfigMap) -> Option<Self> {
        let data = map.data.as_ref()?;
        let text = |key: &str| data.get(key).filter(|text| !text.is_empty()).cloned();
        let time = |key: &str| text(key)?.parse().ok();
        Some(Self {
            holder: text("holder")?,
            version: text("version").unwrap_or_default(),
            acquired: time("acquired").unwrap_or_default(),
            renewed: time("renewed").unwrap_or_default(),
        })
    }

    fn data(&self) -> BTreeMap<String, String> {
        let entries = [
            ("holder", self.holder.clone()),
            ("version", self.version.clone()),
            ("acquired", self.acquired.to_string()),
            ("renewed", self.renewed.to_string()),
        ];
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Why somebody can't have it now; `None` where they can.
    fn refuses(&self, node: &str, now: Timestamp) -> Option<String> {
        let until = self.renewed.saturating_add(LASTS).unwrap_or(Timestamp::MAX);
        (self.holder != node && now < until).then(|| {
            format!(
                "the node {} is being upgraded to {} since {}: one node at a time. Wait until it is done; if it was \
                 interrupted, run its command again there, or wait until {until}",
                self.holder, self.version, self.acquired
            )
        })
    }
}

/// A lock that is held.
pub(super) struct UpgradeLock {
    maps: Api<ConfigMap>,
    node: String,
    shutdown: CancellationToken,
    renewing: AbortOnDropHandle<()>,
}

/// Lets nodes take the lock, whose ConfigMap they cannot make.
pub(super) async fn ensure_lock(client: &Client) -> Result<(), PhaseError> {
    let group = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"});
    let metadata = json!({"name": ROLE, "namespace": NAMESPACE});
    let rules = json!([{"verbs": ["get", "update"], "apiGroups": [""], "resources": ["configmaps"],
        "resourceNames": [NAME]}]);
    let objects: [Value; 2] = [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ROLE}, "subjects": [group]}),
    ];
    apply_objects(client, &objects).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    let empty = ConfigMap { metadata, ..ConfigMap::default() };
    match maps.create(&PostParams::default(), &empty).await {
        Err(error) if !is_conflict(&error) => Err(failed("ConfigMap", NAME, error)),
        _ => Ok(()),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

impl UpgradeLock {
    /// Takes it for a node, or says who has it.
    pub(super) async fn take(client: &Client, node: &str, version: &str) -> Result<Self, PhaseError> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let now = Timestamp::now();
        let own = Record { holder: node.to_owned(), version: version.to_owned(), acquired: now, renewed: now };
        for _ in 0..TRIES {
            let mut map = maps.get(NAME).await.map_err(|error| failed("ConfigMap", NAME, error))?;
            if let Some(why) = Record::read(&map).and_then(|record| record.refuses(node, now)) {
                return Err(PhaseError::Missing(why));
            }
            map.data = Some(own.data());
            match maps.replace(NAME, &PostParams::default(), &map).await {
                Ok(_) => return Ok(Self::held(maps, own)),
                // Somebody else was first: who, shows the next look.
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(failed("ConfigMap", NAME, error)),
            }
        }
        Err(PhaseError::Missing(format!("the ConfigMap {NAME} changes all the time: who else upgrades the cluster?")))
    }

    fn held(maps: Api<ConfigMap>, own: Record) -> Self {
        let (shutdown, node) = (CancellationToken::new(), own.holder.clone());
        let renewing = tokio::spawn(renew(maps.clone(), own, shutdown.clone()));
        Self { maps, node, shutdown, renewing: AbortOnDropHandle::new(renewing) }
    }

    /// Gives it up. Where that fails, it is anybody's after a while.
    pub(super) async fn release(self) {
        self.shutdown.cancel();
        drop(self.renewing);
        for _ in 0..TRIES {
            let released = async {
                let mut map = self.maps.get(NAME).await?;
                if Record::read(&map).is_some_and(|record| record.holder == self.node) {
                    map.data = None;
                    self.maps.replace(NAME, &PostParams::default(), &map).await?;
                }
                Ok::<_, kube::Error>(())
            };
            match released.await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the lock of the upgrade is not released yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
        tracing::warn!(name = NAME, "the lock of the upgrade could not be released; it ends by itself in two minutes");
    }
}

/// Renews the record until `shutdown`, or until it is somebody else's.
async fn renew(maps: Api<ConfigMap>, own: Record, shutdown: CancellationToken) {
    let mut pause = RENEWAL;
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let renewed = async {
            let mut map = maps.get(NAME).await?;
            if Record::read(&map).is_none_or(|record| record.holder != own.holder) {
                return Ok(false);
            }
            map.data = Some(Record { renewed: Timestamp::now(), ..own.clone() }.data());
            maps.replace(NAME, &PostParams::default(), &map).await.map(|_| true)
        };
        pause = match renewed.await {
            Ok(true) => RENEWAL,
            Ok(false) => return,
            // The API server may be what is being replaced right now.
            Err::<_, kube::Error>(_) => RETRY,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let record = Record { holder: "a".into(), version: "v1".into(), acquired: at(0), renewed: at(60) };
        assert_eq!(record.refuses("a", at(61)), None, "it goes on where it was interrupted");
        let why = record.refuses("b", at(61)).unwrap();
        assert!(why.contains("the node a is being upgraded to v1 since 1970-01-01T00:00:00Z"), "{why}");
        assert!(why.ends_with("wait until 1970-01-01T00:03:00Z"), "{why}");
        assert_eq!(record.refuses("b", at(180)), None, "its holder is gone");
    }

    #[test]
    fn records_read_back() {
        let at = Timestamp::from_second(7).unwrap();
        let record = Record { holder: "a".into(), version: "v1".into(), acquired: at, renewed: at };
        let map = ConfigMap { data: Some(record.data()), ..ConfigMap::default() };
        assert_eq!(Record::read(&map), Some(record));
        assert_eq!(Record::read(&ConfigMap::default()), None);
    }
}
