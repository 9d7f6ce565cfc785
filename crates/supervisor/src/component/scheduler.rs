//! `kube-scheduler`: the scheduler as a process of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kedge_client::Informers;
use kedge_scheduler::{KubeSchedulerConfiguration, LeaderElection, SchedulerMetrics};
use kedge_zpages::Flags;
use tokio_util::sync::CancellationToken;

use super::{
    HealthOptions, LeaderOptions, component, configz, counted_client, failed, figures, health, only, read, surroundings,
};
use crate::error::Error;
use crate::kubelet::chain;
use crate::memory::give_memory_back;

const NAME: &str = "kube-scheduler";

/// What the scheduler was asked for.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Upstream's configuration file; the defaults where absent.
    pub config: Option<PathBuf>,
    /// How to reach the API server, and as whom.
    pub kubeconfig: Option<PathBuf>,
    /// How it competes with others.
    pub leader: LeaderOptions,
    /// Where it says how it is.
    pub health: HealthOptions,
    /// The command line, for `/flagz`.
    pub flags: Flags,
}

/// Schedules until `shutdown`.
pub async fn run_scheduler(options: SchedulerOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let metrics = Arc::<SchedulerMetrics>::default();
    let configuration = options.config.as_deref().map(|path| read_scheduler_configuration("--config", path));
    let configuration = configuration.transpose()?.unwrap_or_default();
    let named = Path::new(&configuration.client_connection.kubeconfig);
    let kubeconfig = options.kubeconfig.as_deref().or((!named.as_os_str().is_empty()).then_some(named));
    let client = counted_client(kubeconfig, &metrics.component.requests).await?;
    let (clock, board) = surroundings();
    let (shown, of_pods) = (metrics.clone(), metrics.clone());
    let leader = merged(options.leader, &configuration.leader_election);
    let about = health::About {
        component: component(NAME, options.flags, &clock),
        config: Some(Arc::new(configz::scheduler(&configuration, &leader, kubeconfig))),
        figures: figures(move |text| shown.write(text)),
        of_pods: Some(only(move |text| of_pods.write_pods(text))),
        board: board.clone(),
        clock: clock.clone(),
    };
    health::serve(about, &options.health, shutdown.clone()).await?;
    let leader_election = leader.config()?;
    let config = kedge_scheduler::Config { configuration, leader_election };
    let deps = kedge_scheduler::Deps {
        informers: Informers::new(client.clone(), shutdown.clone()),
        client,
        status: board.component(NAME),
        clock,
        metrics,
    };
    tokio::spawn(give_memory_back(shutdown.clone()));
    kedge_scheduler::run(config, deps, shutdown).await.map_err(|error| failed(NAME, &error))
}

/// Upstream's configuration file of the scheduler; what in it has no effect is named in the log.
pub(crate) fn read_scheduler_configuration(
    flag: &'static str,
    path: &Path,
) -> Result<KubeSchedulerConfiguration, Error> {
    let wrong = |error: kedge_scheduler::ConfigurationError| Error::Flag {
        flag,
        value: path.display().to_string(),
        why: chain(&error),
    };
    let file = KubeSchedulerConfiguration::from_yaml(&read(flag, path)?).map_err(wrong)?;
    for field in file.without_effect() {
        tracing::warn!(file = %path.display(), field, "a part of the scheduler's configuration has no effect");
    }
    Ok(file)
}

/// What flags and file say together: flags win where they say something else than their defaults.
fn merged(flags: LeaderOptions, file: &LeaderElection) -> LeaderOptions {
    let defaults = LeaderOptions {
        elect: true,
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
        resource_name: NAME.to_owned(),
        resource_namespace: "kube-system".to_owned(),
    };
    fn either<T: PartialEq>(flag: T, default: &T, file: Option<T>) -> T {
        if flag == *default { file.unwrap_or(flag) } else { flag }
    }
    LeaderOptions {
        elect: either(flags.elect, &defaults.elect, file.leader_elect),
        lease_duration: either(flags.lease_duration, &defaults.lease_duration, file.lease_duration()),
        renew_deadline: either(flags.renew_deadline, &defaults.renew_deadline, file.renew_deadline()),
        retry_period: either(flags.retry_period, &defaults.retry_period, file.retry_period()),
        resource_name: either(flags.resource_name, &defaults.resource_name, file.resource_name.clone()),
        resource_namespace: either(
            flags.resource_namespace,
            &defaults.resource_namespace,
            file.resource_namespace.clone(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_schedulers_file() {
        let flags = LeaderOptions {
            elect: true,
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(8),
            retry_period: Duration::from_secs(2),
            resource_name: NAME.to_owned(),
            resource_namespace: "kube-system".to_owned(),
        };
        let text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
                    leaderElection: {leaderElect: false, leaseDuration: 30s, renewDeadline: 20s, resourceName: mine}\n";
        let file = KubeSchedulerConfiguration::from_yaml(text).unwrap();
        let merged = merged(flags, &file.leader_election);
        assert!(!merged.elect);
        assert_eq!((merged.lease_duration.as_secs(), merged.renew_deadline.as_secs()), (30, 8));
        assert_eq!((merged.resource_name.as_str(), merged.resource_namespace.as_str()), ("mine", "kube-system"));
    }
}
