//! The phases of an upgrade, which run one after the other or alone: kubeadm's names and parts.
//!
//! `upgrade apply` has all of them; `upgrade node` those that concern one machine, of which a worker has the kubelet's only.

use super::session::Session;
use super::{Upgrade, UpgradeCommand, in_phase};
use crate::init::{InitError, PhaseError};

/// The phases and their parts, in order.
// DIVERGES: upstream's post-upgrade has nothing to do at present; here the kubelet's flags come with its configuration, so
// that it is started once.
pub const UPGRADE_PHASES: [(&str, &[&str]); 7] = [
    ("preflight", &[]),
    ("control-plane", &[]),
    ("upload-config", &["kubeadm", "kubelet"]),
    ("kubeconfig", &[]),
    ("kubelet-config", &[]),
    ("bootstrap-token", &[]),
    ("addon", &["coredns", "kube-proxy", "network"]),
];
/// What only `apply` does: it concerns the whole cluster.
const SHARED: [&str; 2] = ["upload-config", "bootstrap-token"];

/// Whether a command has a phase and a part of it.
pub(super) fn is_known(command: UpgradeCommand, phase: &str, part: Option<&str>) -> bool {
    let parts = UPGRADE_PHASES.iter().find(|(known, _)| *known == phase).map(|(_, parts)| *parts);
    let has_phase = command == UpgradeCommand::Apply || !SHARED.contains(&phase);
    let has_part = |parts: &[&str]| match part {
        None => true,
        Some(part) => !parts.is_empty() && (part == "all" || parts.contains(&part)),
    };
    has_phase && parts.is_some_and(has_part)
}

impl Upgrade<'_> {
    /// All phases that come after preflight.
    pub(super) async fn all_phases(&self, session: &Session, command: UpgradeCommand) -> Result<(), InitError> {
        let is_control_plane = session.host.control_plane.is_some();
        if is_control_plane && command == UpgradeCommand::Node && !self.skips("preflight") {
            // Upstream does not look at the cluster here; but one control plane must be well before the next goes down.
            self.check_health(session, true).await.map_err(in_phase("preflight"))?;
        }
        if !(is_control_plane && self.skips("control-plane")) {
            self.make_images(session).await.map_err(in_phase("preflight"))?;
        }
        let all = UPGRADE_PHASES.iter().skip(1).filter(|(phase, _)| is_known(command, phase, None));
        for (phase, parts) in all.filter(|(phase, _)| !self.skips(phase)) {
            let left_out = |part: &&&str| self.skips(&format!("{phase}/{part}"));
            if !parts.iter().any(|part| left_out(&part)) {
                self.run_phase(session, command, phase, None).await.map_err(in_phase(phase))?;
                continue;
            }
            for part in parts.iter().filter(|part| !left_out(part)) {
                let name = format!("{phase}/{part}");
                self.run_phase(session, command, phase, Some(part)).await.map_err(in_phase(&name))?;
            }
        }
        Ok(())
    }

    /// All checks; what each command is to bring about comes after them.
    pub(super) async fn preflight(&self, session: &Session, command: UpgradeCommand) -> Result<(), PhaseError> {
        match command {
            UpgradeCommand::Apply => {
                self.check_cluster(session).await?;
                self.ask()
            }
            _ => self.check_node(session).await,
        }
    }

    /// One phase. Of preflight, what changes something.
    pub(super) async fn run_phase(
        &self,
        session: &Session,
        command: UpgradeCommand,
        phase: &str,
        part: Option<&str>,
    ) -> Result<(), PhaseError> {
        let is_worker = session.host.control_plane.is_none();
        match phase {
            "preflight" => self.make_images(session).await,
            "control-plane" | "kubeconfig" if is_worker => {
                (self.say)(&format!("[upgrade/{phase}] Skipping phase. Not a control plane node."));
                Ok(())
            }
            "addon" if is_worker => {
                (self.say)("[upgrade/addon] Skipping the addon phase. Not a control plane node.");
                Ok(())
            }
            "control-plane" => self.upgrade_control_plane(session).await,
            "upload-config" => self.upload_config(session, part).await,
            "kubeconfig" => self.kubeconfigs(session, command == UpgradeCommand::Apply).await,
            "kubelet-config" => self.kubelet(session).await,
            "bootstrap-token" => self.bootstrap_tokens(session).await,
            _ => self.upgrade_addons(session, part).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_knows_its_phases() {
        use UpgradeCommand::{Apply, Node};
        for (command, phase, part, expected) in [
            (Apply, "preflight", None, true),
            (Apply, "upload-config", Some("kubelet"), true),
            (Apply, "upload-config", Some("all"), true),
            (Node, "upload-config", None, false),
            (Node, "bootstrap-token", None, false),
            (Node, "addon", Some("coredns"), true),
            (Node, "kubelet-config", Some("all"), false),
            (Apply, "addon", Some("dns"), false),
            (Apply, "post-upgrade", None, false),
        ] {
            assert_eq!(is_known(command, phase, part), expected, "{phase} {part:?}");
        }
    }
}
