//! What is looked at before a machine becomes part of a cluster: a table of checks with kubeadm's names and texts, and some
//! that kubeadm lacks.
//!
//! Invariant: checks change nothing on the machine (a probe file of the disk check is gone at its end), and all of them
//! run, so that everything that is wrong shows at once.

mod environment;
mod host_checks;
mod mend;
mod own_checks;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::Say;

pub(crate) use environment::{external_etcd_files, external_etcd_version};
pub(crate) use mend::mend_aloud;
pub use mend::{Change, mend};

/// What a machine is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The first control plane.
    Init,
    /// A further control plane.
    ControlPlane,
    /// A worker.
    Worker,
}

/// What the checks are told.
#[derive(Debug, Clone)]
pub struct CheckFacts {
    /// What the machine is to become.
    pub role: Role,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// The port of its API server.
    pub api_port: u16,
    /// The host under which the API is looked for, where that is known.
    pub api_host: Option<String>,
    /// The container runtime's socket; none where none was found.
    pub cri_socket: Option<String>,
    /// Where etcd's data will be, where the machine runs a member.
    pub etcd_data_dir: Option<PathBuf>,
    /// Flags and ranges.
    pub ranges: Vec<(&'static str, IpNet)>,
    /// Below which the machine's files are: `/`, but for tests.
    pub root: PathBuf,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckResult {
    /// The check's name.
    pub name: String,
    /// What will be missing.
    pub warnings: Vec<String>,
    /// What can't work.
    pub errors: Vec<String>,
}

impl CheckResult {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub(crate) fn warning(mut self, text: impl Into<String>) -> Self {
        self.warnings.push(text.into());
        self
    }

    pub(crate) fn error(mut self, text: impl Into<String>) -> Self {
        self.errors.push(text.into());
        self
    }
}

/// Checks that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "[preflight] Some fatal errors occurred:\n{}[preflight] If you know what you are doing, you can make a check \
     non-fatal with `--ignore-preflight-errors=...`",
    .lines.concat()
)]
pub struct ChecksFailed {
    /// A line for each error.
    pub lines: Vec<String>,
}

type Check = fn(&CheckFacts) -> Vec<CheckResult>;

/// The table, in the order in which results show.
const CHECKS: [Check; 22] = [
    host_checks::privileged_user,
    host_checks::cpus,
    host_checks::memory,
    environment::firewalld,
    host_checks::ports,
    host_checks::files,
    environment::proxies,
    host_checks::swap,
    host_checks::programs,
    host_checks::system,
    host_checks::hostname,
    host_checks::forwarding,
    host_checks::etcd_directory,
    own_checks::bridge,
    own_checks::rule_programs,
    own_checks::plugins,
    own_checks::ranges,
    own_checks::inotify,
    own_checks::identity,
    own_checks::mtu,
    own_checks::resources,
    own_checks::disk,
];

/// Runs all checks, tells of warnings, and fails where there is an error that nobody ignores. `asked` is what
/// the checks found that talk to others.
pub fn run_checks(
    facts: &CheckFacts,
    asked: Vec<CheckResult>,
    ignored: &[String],
    say: Say<'_>,
) -> Result<(), ChecksFailed> {
    say("[preflight] Running pre-flight checks");
    let results = CHECKS.iter().flat_map(|check| check(facts)).chain(asked);
    judge(results.collect(), ignored, say)
}

pub(crate) fn judge(results: Vec<CheckResult>, ignored: &[String], say: Say<'_>) -> Result<(), ChecksFailed> {
    let is_ignored = |name: &str| ignored.iter().any(|ignored| ignored.eq_ignore_ascii_case(name) || ignored == "all");
    let mut lines = Vec::new();
    for result in results {
        let (warnings, errors) = match is_ignored(&result.name) {
            true => ([result.warnings, result.errors].concat(), Vec::new()),
            false => (result.warnings, result.errors),
        };
        for warning in warnings {
            say(&format!("\t[WARNING {}]: {warning}", result.name));
        }
        lines.extend(errors.into_iter().map(|error| format!("\t[ERROR {}]: {error}\n", result.name)));
    }
    if lines.is_empty() { Ok(()) } else { Err(ChecksFailed { lines }) }
}

/// What the container runtime says of itself.
pub async fn check_runtime(socket: Option<&str>) -> CheckResult {
    let result = CheckResult::new("CRI");
    let Some(socket) = socket else {
        let known = kedge_cri::WELL_KNOWN_ENDPOINTS.join(", ");
        return result.error(format!(
            "could not connect to the container runtime: none answers at {known}; start one, or name its socket with \
             --cri-socket"
        ));
    };
    match kedge_cri::Runtime::connect(socket).await {
        Ok(_) => result,
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            result.error(format!("could not connect to the container runtime: {text}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn errors_are_warnings_where_they_are_ignored() {
        let lines = Mutex::new(Vec::new());
        let say = |line: &str| lines.lock().unwrap().push(line.to_owned());
        let results = || {
            vec![
                CheckResult::new("Swap").warning("swap is on"),
                CheckResult::new("NumCPU").error("one"),
                CheckResult::new("Mem").error("little"),
            ]
        };
        let failed = judge(results(), &["numcpu".to_owned()], &say).unwrap_err();
        assert_eq!(*lines.lock().unwrap(), ["\t[WARNING Swap]: swap is on", "\t[WARNING NumCPU]: one"]);
        assert_eq!(
            failed.to_string(),
            "[preflight] Some fatal errors occurred:\n\t[ERROR Mem]: little\n[preflight] If you know what you are \
             doing, you can make a check non-fatal with `--ignore-preflight-errors=...`"
        );
        assert_eq!(judge(results(), &["all".to_owned()], &say), Ok(()));
    }
}
