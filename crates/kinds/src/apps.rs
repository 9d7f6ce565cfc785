//! The kinds of the apps group.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "controllerrevisions" => &controller_revision::ControllerRevision,
        "daemonsets" => &daemon_set::DaemonSet,
        "deployments" => &deployment::Deployment,
        "replicasets" => &replica_set::ReplicaSet,
        "statefulsets" => &stateful_set::StatefulSet,
        _ => &Generic::PLAIN,
    }
}
