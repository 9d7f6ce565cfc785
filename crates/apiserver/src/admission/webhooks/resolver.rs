//! Where a Service is answered that a webhook is reached by.

use std::sync::Arc;

use async_trait::async_trait;
use kedge_store::Store;
use kedge_webhooks::{Address, Resolver};

use crate::service_endpoints::locate;

/// Looks into the store.
pub(crate) struct Endpoints {
    store: Arc<dyn Store>,
}

impl Endpoints {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Resolver for Endpoints {
    async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Address, String> {
        let found = locate(&*self.store, namespace, name, port).await.map_err(|missing| missing.text(name, port))?;
        Ok(Address { host: found.host, port: found.port })
    }
}
