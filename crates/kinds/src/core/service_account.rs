//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::items;

/// Of serviceaccounts.
pub(crate) struct ServiceAccount;

const COLUMNS: &[Column] = &[NAME, column("Secrets", "string", "How many secrets it lists"), AGE];

impl Strategy for ServiceAccount {
    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(items(object, &["secrets"]).len()), age(object, now)]
    }
}
