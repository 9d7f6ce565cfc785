//! What the doctor says: run as the program that people run, from where the scenario says that the cause can be seen.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::machines::{Machines, own_program, run_here};
use crate::target::Target;

/// From where the doctor looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "camelCase", deny_unknown_fields)]
pub enum Look {
    /// Through the API.
    Cluster,
    /// On a machine.
    Node {
        /// Which.
        on: String,
    },
    /// In what was recorded on a machine: a directory, an archive or a file, as `kedge doctor bundle` reads them.
    Bundle {
        /// The machine that has it.
        on: String,
        /// Where.
        path: String,
    },
    /// In what a command says on a machine, as a person pastes it.
    Said {
        /// The machine.
        on: String,
        /// For a shell.
        run: String,
    },
}

impl Look {
    /// Whether the doctor can mend what it sees from there.
    pub(crate) fn can_fix(&self) -> bool {
        matches!(self, Self::Cluster | Self::Node { .. })
    }
}

/// What was not recorded yet tells of nothing.
const BUNDLE: &str = "[ -e \"$2\" ] || { echo '{}'; exit 0; }; exec \"$1\" doctor bundle \"$2\" --output json";
/// A command that says nothing has nothing to complain of.
const SAID: &str = "said=$(sh -c \"$2\" 2>&1); [ -n \"$said\" ] || { echo '{}'; exit 0; }; \
    printf '%s\\n' \"$said\" | \"$1\" doctor bundle - --output json";

/// A cause that the doctor named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The entry of the catalogue.
    pub id: String,
    /// The same with whom it is about.
    pub key: String,
    /// Whether something fails, and is not only about to.
    pub fails: bool,
}

/// What the doctor found, best first.
pub(crate) fn diagnose(look: &Look, target: &Target, machines: &Machines) -> Result<Vec<Named>, Error> {
    let ran = match look {
        Look::Cluster => {
            let kubeconfig = target.kubeconfig()?;
            let shown = kubeconfig.display().to_string();
            let program = own_program()?.display().to_string();
            run_here(&program, &["doctor", "--kubeconfig", &shown, "--output", "json"], &kubeconfig, machines)?
        }
        Look::Node { on } => {
            let script = "exec \"$1\" doctor node --node-name \"$2\" --output json";
            machines.try_run(on, script, &[&machines.kedge()?, on], None)?
        }
        Look::Bundle { on, path } => machines.try_run(on, BUNDLE, &[&machines.kedge()?, path], None)?,
        Look::Said { on, run } => machines.try_run(on, SAID, &[&machines.kedge()?, run], None)?,
    };
    let said: Value = serde_json::from_slice(&ran.stdout).map_err(|error| Error::Command {
        machine: target.told(),
        command: "kedge doctor".to_owned(),
        why: format!("{error}: {}", ran.said),
    })?;
    Ok(causes(&said))
}

/// Lets the doctor mend causes by itself, and takes its word that they are gone.
pub(crate) fn fix(look: &Look, causes: &[&str], target: &Target, machines: &Machines) -> Result<(), Error> {
    let ids = causes.join(",");
    let ran = match look {
        Look::Node { on } => machines.try_run(on, FIX_NODE, &[&machines.kedge()?, on, &ids], None)?,
        _ => {
            let kubeconfig = target.kubeconfig()?;
            let shown = kubeconfig.display().to_string();
            let program = own_program()?.display().to_string();
            let words = ["doctor", "--kubeconfig", &shown, "--lang", "en", "--fix", "--yes", "--id", &ids];
            run_here(&program, &words, &kubeconfig, machines)?
        }
    };
    match causes.iter().find(|id| !ran.said.contains(&format!("mended: {id} is gone"))) {
        None => Ok(()),
        Some(id) => {
            let (machine, command) = (target.told(), format!("kedge doctor --fix --id {id}"));
            Err(Error::Command { machine, command, why: ran.said })
        }
    }
}

const FIX_NODE: &str = "exec \"$1\" doctor node --node-name \"$2\" --lang en --fix --yes --id \"$3\"";

fn causes(said: &Value) -> Vec<Named> {
    let causes = said["causes"].as_array().into_iter().flatten();
    let named = |cause: &Value| {
        let id = cause["id"].as_str().unwrap_or_default().to_owned();
        Named { key: format!("{id} {}", cause["subject"]), fails: cause["severity"] == "failure", id }
    };
    causes.map(named).collect()
}

/// The place of the last of the true causes among those that were not there before, from 1 on: only what is none of them
/// and comes before it counts. True causes that are looked for elsewhere may be seen from here, too.
pub fn rank(causes: &[Named], before: &[String], wanted: &[&str], elsewhere: &[&str]) -> Option<usize> {
    let fresh: Vec<&Named> = causes.iter().filter(|cause| !before.contains(&cause.key)).collect();
    let is_true = |cause: &Named| [wanted, elsewhere].iter().any(|ids| ids.contains(&cause.id.as_str()));
    let places = wanted.iter().map(|wanted| fresh.iter().position(|cause| cause.id == *wanted));
    let last = places.collect::<Option<Vec<usize>>>()?.into_iter().max()?;
    Some(1 + fresh[..last].iter().filter(|cause| !is_true(cause)).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_there_before_does_not_count() {
        let said = json!({"causes": [{"id": "F1", "subject": {"name": "/"}, "severity": "warning"},
            {"id": "A5", "subject": {"name": "x"}, "severity": "failure"}]});
        let causes = causes(&said);
        assert_eq!(causes.iter().map(|cause| cause.fails).collect::<Vec<_>>(), [false, true]);
        assert_eq!(rank(&causes, &[], &["A5"], &[]), Some(2));
        assert_eq!(rank(&causes, std::slice::from_ref(&causes[0].key), &["A5"], &[]), Some(1));
        assert_eq!(rank(&causes, &[], &["A6"], &[]), None);
        assert_eq!(rank(&causes, &[], &["A5", "F1"], &[]), Some(1));
        assert_eq!(rank(&causes, &[], &["A5", "A6"], &[]), None);
        assert_eq!(rank(&causes, &[], &["A5"], &["F1"]), Some(1));
    }
}
