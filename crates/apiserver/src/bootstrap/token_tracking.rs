//! The ConfigMap that says since when uses of tokens out of Secrets are noted: before that, a token without a date may
//! well have been used.

use kedge_meta::ApiStatus;
use kedge_store::Transaction;
use serde_json::{Value, json};

use super::{ATTEMPTS, is_done, plan, plan_update};
use crate::core::Core;
use crate::object;

const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
const NAMESPACE: &str = "kube-system";
const KEY: &str = "since";
const DATE: &str = "%Y-%m-%d";

/// Makes it where it is missing, and mends a date that is none.
pub(super) async fn ensure(core: &Core) -> Result<(), ApiStatus> {
    let today = core.clock.now().strftime(DATE).to_string();
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::default();
        match core.object("", "configmaps", NAMESPACE, NAME).await? {
            None => plan(core, config_map(&json!({KEY: today})), core.clock.now(), &mut transaction).await?,
            Some((_, current)) if !has_date(&current) => {
                let mut data = object::at(&current, &["data"]).filter(|data| data.is_object()).cloned();
                data.get_or_insert_with(|| json!({}))[KEY] = json!(today);
                plan_update(core, &config_map(&json!(data)), &["data"], &mut transaction).await?;
            }
            Some(_) => {}
        }
        if is_done(core, transaction).await? {
            return Ok(());
        }
    }
    Err(ApiStatus::internal("somebody else keeps changing the ConfigMap about tokens in Secrets"))
}

fn config_map(data: &Value) -> Value {
    let metadata = json!({"name": NAME, "namespace": NAMESPACE});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
}

fn has_date(config_map: &Value) -> bool {
    jiff::civil::Date::strptime(DATE, object::text(config_map, &["data", KEY])).is_ok()
}
