//! The components of a control plane, and what shows when one of them is away.

use crate::action::Action;
use crate::rules::{Explains, Scope};

/// What any of them may explain; a finding narrows it to its own component.
pub(crate) const OF_A_COMPONENT: &[Explains] = &[
    Explains { ids: &["A15", "A16", "D10", "E1", "H2", "H3"], scope: Scope::Anywhere },
    Explains { ids: &["W1", "W2"], scope: Scope::SameSubject },
];

/// A component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    /// The API server.
    ApiServer,
    /// The controller manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The store.
    Etcd,
}

impl Component {
    pub(crate) const ALL: [Self; 4] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Etcd];

    /// Its name, as pods and files have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Etcd => "etcd",
        }
    }

    /// The phase of `kedge init` that writes its manifest.
    pub(crate) fn phase(self) -> &'static str {
        match self {
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Etcd => "local",
        }
    }

    /// Writes its manifest as it was meant.
    pub(crate) fn restore(self) -> Action {
        Action::RestoreManifest { path: format!("/etc/kubernetes/manifests/{}.yaml", self.name()) }
    }

    /// The rules that fire when it is away.
    pub(crate) fn effects(self) -> &'static [&'static str] {
        match self {
            Self::ApiServer => &["A15", "D10", "E1", "H2", "H3", "W1", "W2"],
            Self::Etcd => &["A15", "A16", "D10", "E1", "H2", "H3", "W1", "W2"],
            Self::ControllerManager => &["D10", "H3", "W1", "W2"],
            Self::Scheduler => &["D10", "H2", "W1", "W2"],
        }
    }
}
