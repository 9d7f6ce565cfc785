//! A plug-in that wants to be known: its socket in the kubelet's `plugins_registry`.

use std::path::Path;
use std::time::Duration;

use crate::channel::Channel;
use crate::error::CsiError;
use crate::v1::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

/// A client of one plug-in's registration.
#[derive(Clone, Debug)]
pub struct Registration {
    channel: Channel,
}

impl Registration {
    /// Dials at the first call.
    pub fn new(socket: &Path, deadline: Duration) -> Self {
        Self { channel: Channel::new(socket, deadline) }
    }

    /// Who the plug-in is.
    pub async fn get_info(&self) -> Result<PluginInfo, CsiError> {
        self.channel.call("/pluginregistration.Registration/GetInfo", InfoRequest {}).await
    }

    /// Tells the plug-in whether it was taken, or why not.
    pub async fn notify(&self, outcome: Result<(), String>) -> Result<(), CsiError> {
        let status =
            RegistrationStatus { plugin_registered: outcome.is_ok(), error: outcome.err().unwrap_or_default() };
        let method = "/pluginregistration.Registration/NotifyRegistrationStatus";
        self.channel.call::<_, RegistrationStatusResponse>(method, status).await.map(|_| ())
    }
}
