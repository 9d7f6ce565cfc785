//! From an action to operations: whether it still has something to do, what it changes, and what undoes that.
//!
//! It only reads. Invariant: the undo of a step, done in its order after the step, gives the machine as it was.

use std::os::unix::fs::PermissionsExt;

use kedge_diagnosis::{Action, Cause};
use serde_yaml::Value;
use similar::TextDiff;

use crate::api;
use crate::host::Host;
use crate::operation::{Operation, UnitVerb};

/// Switches that Kedge set, for the machine's next start.
const SETTINGS_DIR: &str = "/etc/sysctl.d";
/// Modules that Kedge loaded, for the machine's next start.
const MODULES_DIR: &str = "/etc/modules-load.d";
/// What a kubelet runs with.
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
pub(crate) const CONTEXT_LINES: usize = 3;

/// Why an action cannot be done here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPossible {
    /// There is nothing left to do.
    #[error("{0}")]
    Settled(String),
    /// What it needs is not there.
    #[error("{0}")]
    Missing(String),
}

/// What mends one cause on this machine.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the cause, as in the catalogue.
    pub id: &'static str,
    /// The cause in a few words.
    pub title: &'static str,
    /// In their order.
    pub steps: Vec<PlannedStep>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// What it does and why.
    pub text: String,
    /// What changes, as a diff or a line.
    pub preview: String,
    /// What is done, in its order.
    pub operations: Vec<Operation>,
    /// What undoes it, in its order.
    pub undo: Vec<Operation>,
}

/// What mends a cause; `None` where that is for people: nothing in it can be done by a program, or data may be lost.
///
/// # Errors
/// Where an action has nothing to do, or cannot be done here.
pub fn plan_repair(cause: &Cause, host: &Host) -> Result<Option<Plan>, NotPossible> {
    if cause.repair.dangerous {
        return Ok(None);
    }
    let mut steps = Vec::new();
    for step in &cause.repair.steps {
        let Some(action) = &step.action else { continue };
        // A switch of the kernel appears with its module.
        let loads = steps.iter().any(|step: &PlannedStep| step.operations.iter().any(Operation::loads_module));
        match plan(action, host, loads) {
            Ok((preview, operations, undo)) => {
                steps.push(PlannedStep { text: step.text.clone(), preview, operations, undo });
            }
            // A part that is settled already, as an empty file that is gone, does not hold up the others.
            Err(NotPossible::Settled(_)) if !steps.is_empty() => {}
            Err(why) => return Err(why),
        }
    }
    Ok((!steps.is_empty()).then_some(Plan { id: cause.id, title: cause.title, steps }))
}

/// What is shown, what is done, and what undoes it.
pub(crate) type Parts = (String, Vec<Operation>, Vec<Operation>);

fn plan(action: &Action, host: &Host, loads: bool) -> Result<Parts, NotPossible> {
    if let Some(planned) = api::plan(action, host) {
        return planned;
    }
    if host.is_elsewhere() {
        let why = format!("to {action} is for its machine: `kedge doctor node --fix`, there");
        return Err(NotPossible::Missing(why));
    }
    match action {
        Action::RestoreManifest { path } => restore(path, host),
        Action::RemoveEmptyFile { path } => remove_file(path, host),
        Action::RemoveEmptyDirectory { path } => remove_directory(path, host),
        Action::MoveOut { path } => move_out(path, host),
        Action::SetSetting { name, value } => set(name, value, host, loads),
        Action::LoadModule { name } => load(name, host),
        Action::StartUnit { name } => start(name, host),
        Action::Uncordon { .. }
        | Action::RemoveTaint { .. }
        | Action::ReplaceDirective { .. }
        | Action::RestartDeployment { .. } => Err(NotPossible::Missing(format!("to {action} is for the API"))),
    }
}

pub(crate) fn settled(text: String) -> NotPossible {
    NotPossible::Settled(text)
}

fn restore(path: &str, host: &Host) -> Result<Parts, NotPossible> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let copy = host.intended_manifest(file);
    let meant = std::fs::read_to_string(&copy).map_err(|error| {
        let why = format!("{} cannot be read ({error}): nothing says how {path} was meant", copy.display());
        NotPossible::Missing(why + "; restore it by hand, or with `kedge init phase control-plane`")
    })?;
    let present = host.read(path).unwrap_or_default();
    let parsed = |text: &str| serde_yaml::from_str::<Value>(text).ok();
    if parsed(&present).is_some_and(|present| Some(present) == parsed(&meant)) {
        return Err(settled(format!("{path} is as it was meant")));
    }
    Ok(write(path, &meant, 0o600, host))
}

/// A file with another text: what there was comes back by the undo.
fn write(path: &str, content: &str, mode: u32, host: &Host) -> Parts {
    let present = host.read(path);
    let old = present.as_deref().unwrap_or_default();
    let from = if present.is_ok() { path } else { "/dev/null" };
    let preview =
        TextDiff::from_lines(old, content).unified_diff().context_radius(CONTEXT_LINES).header(from, path).to_string();
    let undo = match host.metadata(path) {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o7777;
            Operation::WriteFile { path: path.to_owned(), content: old.to_owned(), mode }
        }
        Err(_) => Operation::RemoveFile { path: path.to_owned() },
    };
    (preview, vec![Operation::WriteFile { path: path.to_owned(), content: content.to_owned(), mode }], vec![undo])
}

fn remove_file(path: &str, host: &Host) -> Result<Parts, NotPossible> {
    let found = host.metadata(path).map_err(|_| settled(format!("{path} is gone")))?;
    if !found.is_file() || found.len() > 0 {
        return Err(NotPossible::Missing(format!("{path} is no empty file, and stays")));
    }
    let (path, mode) = (path.to_owned(), found.permissions().mode() & 0o7777);
    let undo = Operation::WriteFile { path: path.clone(), content: String::new(), mode };
    Ok((format!("- {path} (empty)"), vec![Operation::RemoveFile { path }], vec![undo]))
}

fn remove_directory(path: &str, host: &Host) -> Result<Parts, NotPossible> {
    let found = host.metadata(path).map_err(|_| settled(format!("{path} is gone")))?;
    if !found.is_dir() || !host.is_empty_directory(path) {
        return Err(NotPossible::Missing(format!("{path} is no empty directory, and stays")));
    }
    let (path, mode) = (path.to_owned(), found.permissions().mode() & 0o7777);
    let undo = Operation::MakeDirectory { path: path.clone(), mode };
    Ok((format!("- {path}/ (empty)"), vec![Operation::RemoveDirectory { path }], vec![undo]))
}

fn move_out(path: &str, host: &Host) -> Result<Parts, NotPossible> {
    let content = host.read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => settled(format!("{path} is gone")),
        _ => NotPossible::Missing(format!("{path} cannot be read: {error}")),
    })?;
    let mode = host.metadata(path).map_or(0o600, |found| found.permissions().mode() & 0o7777);
    let file = path.rsplit('/').next().unwrap_or(path);
    let to = format!("{}/moved/{file}", kedge_lifecycle::STATE_DIR);
    if host.metadata(&to).is_ok() {
        return Err(NotPossible::Missing(format!("{to} is there already: look at it, and move {path} by hand")));
    }
    let own = path.to_owned();
    let operations = vec![
        Operation::WriteFile { path: to.clone(), content: content.clone(), mode },
        Operation::RemoveFile { path: own.clone() },
    ];
    let undo = vec![Operation::WriteFile { path: own, content, mode }, Operation::RemoveFile { path: to.clone() }];
    Ok((format!("{path} -> {to}"), operations, undo))
}

fn set(name: &str, value: &str, host: &Host, loads: bool) -> Result<Parts, NotPossible> {
    let present = host.setting(name);
    if present.is_none() && !loads {
        return Err(NotPossible::Missing(format!("the kernel has no {name}: its module is not loaded")));
    }
    let file = format!("{SETTINGS_DIR}/99-kedge-{}.conf", name.replace(['.', '/'], "-"));
    let (preview, mut operations, mut undo) = write(&file, &format!("{name} = {value}\n"), 0o644, host);
    if present.as_deref() == Some(value) {
        if preview.is_empty() {
            return Err(settled(format!("{name} is {value}")));
        }
    } else {
        operations.push(Operation::SetSetting { name: name.to_owned(), value: value.to_owned() });
        undo.extend(present.clone().map(|value| Operation::SetSetting { name: name.to_owned(), value }));
    }
    let present = present.unwrap_or_else(|| "(absent)".to_owned());
    Ok((format!("{name}: {present} -> {value}\n{preview}"), operations, undo))
}

fn load(name: &str, host: &Host) -> Result<Parts, NotPossible> {
    let file = format!("{MODULES_DIR}/99-kedge-{name}.conf");
    let (preview, mut operations, mut undo) = write(&file, &format!("{name}\n"), 0o644, host);
    if !host.has_module(name) {
        operations.push(Operation::LoadModule { name: name.to_owned() });
        undo.push(Operation::UnloadModule { name: name.to_owned() });
    } else if preview.is_empty() {
        return Err(settled(format!("{name} is loaded")));
    }
    Ok((format!("modprobe {name}\n{preview}"), operations, undo))
}

/// Where nobody else does: by Kedge's own process.
fn keep_kubelet(host: &Host) -> Result<Parts, NotPossible> {
    if host.metadata(KUBELET_CONFIG).is_err() {
        return Err(NotPossible::Missing(format!("{KUBELET_CONFIG} is not there: the machine has to join first")));
    }
    let preview = "no systemd here: kedge keeps the kubelet running until the machine's next start".to_owned();
    Ok((preview, vec![Operation::StartKubelet], vec![Operation::StopKubelet]))
}

fn start(name: &str, host: &Host) -> Result<Parts, NotPossible> {
    if !host.has_service_manager() && name == "kubelet" {
        return keep_kubelet(host);
    }
    if !host.has_service_manager() {
        return Err(NotPossible::Missing(format!("no systemd keeps {name} on this machine: start it by hand")));
    }
    let unit = |verb| Operation::Unit { verb, name: name.to_owned() };
    let (mut operations, mut undo) = (Vec::new(), Vec::new());
    if !host.ask_unit("is-enabled", name) {
        operations.push(unit(UnitVerb::Enable));
        undo.push(unit(UnitVerb::Disable));
    }
    if !host.ask_unit("is-active", name) {
        operations.push(unit(UnitVerb::Start));
        undo.insert(0, unit(UnitVerb::Stop));
    }
    if operations.is_empty() {
        return Err(settled(format!("{name} runs")));
    }
    Ok((format!("systemctl enable --now {name}"), operations, undo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_lifecycle::HostLayout;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> (Self, Host) {
            let directory = tempfile::tempdir().expect("a directory");
            let host = Host::new(HostLayout::below(directory.path()));
            (Self(directory), host)
        }

        fn write(&self, path: &str, text: &str) {
            let place = self.0.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(place.parent().expect("it has one")).expect("it is made");
            std::fs::write(place, text).expect("it is written");
        }

        fn files(&self) -> Vec<(String, String)> {
            fn below(directory: &std::path::Path, root: &std::path::Path, found: &mut Vec<(String, String)>) {
                for entry in std::fs::read_dir(directory).expect("it is read").flatten() {
                    let path = entry.path();
                    let name = path.strip_prefix(root).expect("it is below").display().to_string();
                    match path.is_dir() {
                        true => below(&path, root, found),
                        false => found.push((name, std::fs::read_to_string(path).expect("it is read"))),
                    }
                }
            }
            let mut found = Vec::new();
            below(self.0.path(), self.0.path(), &mut found);
            found.sort();
            found
        }
    }

    const MANIFEST: &str = "/etc/kubernetes/manifests/kube-scheduler.yaml";

    /// Does and undoes an action, and returns its preview.
    fn there_and_back(machine: &Machine, host: &Host, action: &Action) -> String {
        let before = machine.files();
        let (preview, operations, undo) = plan(action, host, false).expect("it is possible");
        operations.iter().for_each(|operation| host.execute(operation).expect("it is done"));
        assert_ne!(machine.files(), before, "{action}");
        assert!(matches!(plan(action, host, false), Err(NotPossible::Settled(_))), "{action} is done once");
        undo.iter().for_each(|operation| host.execute(operation).expect("it is undone"));
        assert_eq!(machine.files(), before, "{action}");
        preview
    }

    #[test]
    fn a_manifest_is_restored_from_what_was_written_and_nothing_else() {
        let (machine, host) = Machine::new();
        machine.write(MANIFEST, "kind: Pod\nspec: {command: kube-schedulerr}\n");
        let action = Action::RestoreManifest { path: MANIFEST.to_owned() };
        assert!(matches!(plan(&action, &host, false), Err(NotPossible::Missing(_))), "nothing says how it was meant");
        machine.write("/var/lib/kedge/manifests/kube-scheduler.yaml", "kind: Pod\nspec: {command: kube-scheduler}\n");
        let preview = there_and_back(&machine, &host, &action);
        assert!(preview.contains("-spec: {command: kube-schedulerr}\n+spec: {command: kube-scheduler}\n"), "{preview}");
        std::fs::remove_file(machine.0.path().join(&MANIFEST[1..])).expect("it is removed");
        there_and_back(&machine, &host, &action);
    }

    #[test]
    fn only_what_is_empty_is_removed() {
        let (machine, host) = Machine::new();
        let path = "/etc/kubernetes/schedulr.conf".to_owned();
        machine.write(&path, "");
        there_and_back(&machine, &host, &Action::RemoveEmptyFile { path: path.clone() });
        machine.write(&path, "x");
        assert!(matches!(
            plan(&Action::RemoveEmptyFile { path: path.clone() }, &host, false),
            Err(NotPossible::Missing(_))
        ));
        let directory = "/etc/kubernetes".to_owned();
        assert!(matches!(
            plan(&Action::RemoveEmptyDirectory { path: directory }, &host, false),
            Err(NotPossible::Missing(_))
        ));
    }

    #[test]
    fn copies_are_moved_and_switches_are_set_for_good() {
        let (machine, host) = Machine::new();
        machine.write("/etc/kubernetes/manifests/etcd.yaml.bak", "kind: Pod\n");
        there_and_back(
            &machine,
            &host,
            &Action::MoveOut { path: "/etc/kubernetes/manifests/etcd.yaml.bak".to_owned() },
        );
        machine.write("/proc/sys/net/ipv4/ip_forward", "0");
        let action = Action::SetSetting { name: "net.ipv4.ip_forward".to_owned(), value: "1".to_owned() };
        let preview = there_and_back(&machine, &host, &action);
        assert!(
            preview.starts_with("net.ipv4.ip_forward: 0 -> 1\n") && preview.contains("+net.ipv4.ip_forward = 1"),
            "{preview}"
        );
        let absent = Action::SetSetting { name: "net.bridge.x".to_owned(), value: "1".to_owned() };
        assert!(matches!(plan(&absent, &host, false), Err(NotPossible::Missing(_))));
        assert!(plan(&absent, &host, true).is_ok(), "its module is loaded before");
    }
}
