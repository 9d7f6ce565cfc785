//! The phases of `kedge upgrade node`: those of a further control plane, or the few of a worker.

use super::session::Session;
use super::{Upgrade, in_phase};
use crate::init::InitError;

impl Upgrade<'_> {
    pub(super) async fn node_phases(&self, session: &Session) -> Result<(), InitError> {
        if session.host.control_plane.is_some() {
            self.check_before_control_plane(session).await?;
            return self.control_plane_phases(session, false).await;
        }
        self.make_images(session).await.map_err(in_phase("preflight"))?;
        (self.say)("[upgrade/control-plane] Skipping phase. Not a control plane node.");
        if !self.skips("kubelet-config") {
            self.kubelet(session).await.map_err(in_phase("kubelet-config"))?;
        }
        (self.say)("[upgrade/addon] Skipping the addon phase. Not a control plane node.");
        Ok(())
    }

    /// Upstream does not look at the cluster here; but one control plane must be well before the next goes down.
    async fn check_before_control_plane(&self, session: &Session) -> Result<(), InitError> {
        self.check_health(session, true).await.map_err(in_phase("preflight"))
    }
}
