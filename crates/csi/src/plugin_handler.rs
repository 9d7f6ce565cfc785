//! Who takes in plug-ins of another kind than storage drivers.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

/// Takes plug-ins of one kind in.
#[async_trait]
pub trait PluginHandler: Send + Sync {
    /// The kind, such as `DRAPlugin`.
    fn kind(&self) -> &'static str;

    /// Takes a plug-in in, or says why not.
    async fn take_in(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String>;

    /// A plug-in's socket is gone.
    async fn gone(self: Arc<Self>, name: &str, endpoint: &Path);
}
