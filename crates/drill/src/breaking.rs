//! Breaking: how each action is taken back (decided from what is there now), and how it is done.

mod scripts;
mod texts;

use std::time::Duration;

use kedge_pki::{CertificateAuthority, CertificateFacts, LeafRequest};
use serde_json::{Value, json};

use self::scripts::{FILL, FILL_BY_FILES, HOLD, HOW_IT_RUNS, MOVE, SLOW, STOP};
use self::texts::{edit, key_of, rules, seconds, sysctl_path, with_quota};
use crate::action::{Action, ObjectRef, Program};
use crate::api::{as_written, reference};
use crate::error::Error;
use crate::machines::Machines;
use crate::observe;
use crate::target::Target;
use crate::undo::{Undo, plan_restore};

/// Where a machine keeps copies of what a drill changes: as private as the files themselves.
const KEPT: &str = "/var/lib/kedge-drill";
/// Larger files are not edited.
const MOST_BYTES: usize = 1 << 20;
const MOST_MEBIBYTES: u16 = 256;
/// Files and directories that a file system takes which is filled with files.
const MOST_FILES: u16 = 256;
/// Bytes that every etcd holds from its first write on.
const USED_UP: u64 = 16 << 10;

/// One step of a run.
pub(crate) struct Step<'a> {
    pub(crate) number: usize,
    pub(crate) run: &'a str,
    pub(crate) action: &'a Action,
    pub(crate) target: &'a Target,
    pub(crate) machines: &'a Machines,
}

impl Step<'_> {
    /// How it will be taken back. Copies of files are made here; nothing else is changed.
    pub(crate) async fn plan_undo(&self) -> Result<Vec<Undo>, Error> {
        Ok(match self.action {
            Action::EditFile { on, path, makes, restarts, .. } => {
                let mut steps = self.plan_undo_of_file(on, path, makes)?;
                let restart = |program: &Program| Undo::Restart { on: on.clone(), program: program.clone() };
                steps.extend(restarts.as_ref().map(restart));
                steps
            }
            Action::WriteFile { on, path, makes, .. } => self.plan_undo_of_file(on, path, makes)?,
            Action::LimitStore { on, path } => vec![
                self.keep(on, path)?,
                // The alarm outlives the quota, and whoever runs with the quota raises it again.
                Undo::DisarmStore { on: on.clone(), quota: USED_UP },
            ],
            Action::CopyFile { on, to, .. } => match self.machines.read(on, to)? {
                Some(_) => return Err(Error::Refused(format!("on {on}: {to} is there already"))),
                None => vec![Undo::RestoreFile { on: on.clone(), path: to.clone(), kept: None }],
            },
            Action::MoveFile { on, path } => {
                self.machines.run(on, "test -e \"$1\"", &[path])?;
                vec![Undo::MoveBack { on: on.clone(), from: self.kept(), to: path.clone() }]
            }
            Action::ReissueCertificate { on, path, .. } => vec![self.keep(on, path)?, self.keep(on, &key_of(path))?],
            Action::CreateObject { object } => {
                vec![Undo::DeleteOwn { object: reference(object), run: self.run.to_owned() }]
            }
            Action::DeleteObject { object } => vec![Undo::Recreate { object: as_written(self.object(object).await?) }],
            Action::PatchObject { object, patch } => {
                let patch = plan_restore(&self.object(object).await?, patch);
                vec![Undo::RestoreFields { object: object.clone(), patch }]
            }
            Action::TaintNode { node, .. } => {
                let object = node_reference(node);
                let patch = plan_restore(&self.object(&object).await?, &json!({"spec": {"taints": null}}));
                vec![Undo::RestoreFields { object, patch }]
            }
            machine => self.plan_undo_of_machine(machine)?,
        })
    }

    fn plan_undo_of_file(&self, on: &str, path: &str, makes: &[String]) -> Result<Vec<Undo>, Error> {
        let mut steps = vec![self.keep(on, path)?];
        // Whoever made them must have seen the file as it was before they go.
        for made in makes {
            steps.extend(self.absent(on, made)?);
        }
        Ok(steps)
    }

    fn plan_undo_of_machine(&self, action: &Action) -> Result<Vec<Undo>, Error> {
        let step = match action {
            Action::PauseProcess { on, process } => {
                self.machines.run(on, "pgrep -x \"$1\"", &[process])?;
                Undo::Continue { on: on.clone(), process: process.clone() }
            }
            Action::SlowProcess { on, process, .. } => {
                self.machines.run(on, "pgrep -x \"$1\"", &[process])?;
                Undo::EndSlowing { on: on.clone(), process: process.clone(), mark: self.kept() }
            }
            Action::StopProcess { kept: true, .. } => return Ok(Vec::new()),
            Action::StopProcess { on, process, command, .. } => self.plan_respawn(on, process, command)?,
            Action::HoldPort { on, .. } => Undo::EndOwn { on: on.clone(), mark: self.kept() },
            Action::FillDisk { on, path, mebibytes, .. } => {
                if *mebibytes > MOST_MEBIBYTES {
                    return Err(Error::Refused(format!("{mebibytes} MiB are more than {MOST_MEBIBYTES}")));
                }
                self.machines.run(on, "test -d \"$1\"", &[path])?;
                Undo::Unmount { on: on.clone(), path: path.clone() }
            }
            Action::BlockPort { on, .. } => Undo::DeleteTable { on: on.clone(), table: self.table() },
            Action::SetMtu { on, interface, .. } | Action::LinkDown { on, interface } => {
                self.plan_link(on, interface)?
            }
            Action::SetSysctl { on, name, .. } => {
                let value = self.machines.run(on, "cat \"/proc/sys/$1\"", &[&sysctl_path(name)?])?.text();
                Undo::SetSysctl { on: on.clone(), name: name.clone(), value }
            }
            Action::PullCable { on } => Undo::PlugIn { on: on.clone() },
            Action::StopNode { on, .. } | Action::StartNode { on } => Undo::StartNode { on: on.clone() },
            _ => return Ok(Vec::new()),
        };
        Ok(vec![step])
    }

    /// Does it.
    pub(crate) async fn perform(&self) -> Result<(), Error> {
        match self.action {
            Action::Await { until, within } => {
                let patience = Duration::from_secs(*within);
                observe::wait(std::slice::from_ref(until), self.target, self.machines, patience).await
            }
            Action::CreateObject { object } => self.target.api().await?.create(object, self.run).await.map(|_| ()),
            Action::DeleteObject { object } => self.target.api().await?.delete(object).await,
            Action::PatchObject { object, patch } => self.target.api().await?.merge(object, patch).await,
            Action::TaintNode { node, key, value, effect } => {
                let object = node_reference(node);
                let mut taints = self.object(&object).await?["spec"]["taints"].as_array().cloned().unwrap_or_default();
                taints.push(json!({"key": key, "value": value, "effect": effect}));
                self.target.api().await?.merge(&object, &json!({"spec": {"taints": taints}})).await
            }
            Action::PullCable { on } => self.target.pull_cable(on),
            Action::StopNode { on, how } => self.target.stop_node(on, *how),
            Action::StartNode { on } => self.target.start_node(on),
            Action::EditFile { on, path, replace, restarts, .. } => {
                let content = self.text(on, path)?;
                let edited =
                    edit(&content, replace).map_err(|why| Error::Refused(format!("on {on}: {path}: {why}")))?;
                self.machines.write(on, path, edited.as_bytes())?;
                restarts.as_ref().map_or(Ok(()), |program| restart(self.machines, on, program))
            }
            Action::LimitStore { on, path } => {
                let limited = with_quota(&self.text(on, path)?, USED_UP);
                let limited = limited.map_err(|why| Error::Refused(format!("on {on}: {path}: {why}")))?;
                self.machines.write(on, path, limited.as_bytes())
            }
            Action::WriteFile { on, path, content, .. } => self.machines.write(on, path, content.as_bytes()),
            Action::CopyFile { on, path, to } => self.machines.write(on, to, self.text(on, path)?.as_bytes()),
            Action::ReissueCertificate { on, path, authority, valid_from_hours, valid_to_hours } => {
                self.reissue(on, path, authority, (*valid_from_hours, *valid_to_hours))
            }
            machine => self.perform_script(machine),
        }
    }

    fn perform_script(&self, action: &Action) -> Result<(), Error> {
        let (kept, table) = (self.kept(), self.table());
        let kedge = self.machines.kedge()?;
        let done = match action {
            Action::MoveFile { on, path } => self.machines.run(on, MOVE, &[path, &kept]),
            Action::PauseProcess { on, process } => {
                self.machines.run(on, "for p in $(pgrep -x \"$1\"); do kill -STOP \"$p\"; done", &[process])
            }
            Action::SlowProcess { on, process, stopped, running } => {
                self.machines.run(on, SLOW, &[process, &kept, &seconds(*stopped), &seconds(*running)])
            }
            Action::StopProcess { on, process, command, .. } => self.machines.run(on, STOP, &[process, command]),
            Action::HoldPort { on, port } => self.machines.run(on, HOLD, &[&kept, &kedge, &port.to_string()]),
            Action::FillDisk { on, path, mebibytes, by_files } => {
                let (script, bound) =
                    if *by_files { (FILL_BY_FILES, format!(",nr_inodes={MOST_FILES}")) } else { (FILL, String::new()) };
                self.machines.run(on, script, &[path, &format!("size={mebibytes}m,mode=755{bound}")])
            }
            Action::BlockPort { on, protocol, port, peer } => {
                let rules = rules(&table, protocol, *port, peer.as_deref())?;
                self.machines.run_with(on, "nft -f -", &[], Some(rules.as_bytes()))
            }
            Action::SetMtu { on, interface, mtu } => {
                self.machines.run(on, "ip link set \"$1\" mtu \"$2\"", &[interface, &mtu.to_string()])
            }
            Action::LinkDown { on, interface } => self.machines.run(on, "ip link set \"$1\" down", &[interface]),
            Action::SetSysctl { on, name, value } => {
                self.machines.run(on, "printf %s \"$2\" > \"/proc/sys/$1\"", &[&sysctl_path(name)?, value])
            }
            _ => return Ok(()),
        };
        done.map(|_| ())
    }

    fn kept(&self) -> String {
        format!("{KEPT}/{}/{}", self.run, self.number)
    }

    fn table(&self) -> String {
        format!("kedge_drill_{}", self.number)
    }

    /// Keeps a copy of a file; where there is none, that is what will be restored.
    fn keep(&self, on: &str, path: &str) -> Result<Undo, Error> {
        let kept = format!("{}-{}", self.kept(), path.rsplit('/').next().unwrap_or_default());
        let there = self.machines.try_run(on, "test -f \"$1\"", &[path], None)?.ok;
        if there {
            let script = "set -e; umask 077; mkdir -p \"$(dirname \"$2\")\"; cp -pL \"$1\" \"$2\"; sync \"$2\"";
            self.machines.run(on, script, &[path, &kept])?;
        }
        Ok(Undo::RestoreFile { on: on.to_owned(), path: path.to_owned(), kept: there.then_some(kept) })
    }

    fn absent(&self, on: &str, path: &str) -> Result<Option<Undo>, Error> {
        let there = self.machines.try_run(on, "test -e \"$1\"", &[path], None)?.ok;
        Ok((!there).then(|| Undo::RemoveEmpty { on: on.to_owned(), path: path.to_owned() }))
    }

    fn plan_respawn(&self, on: &str, process: &str, word: &str) -> Result<Undo, Error> {
        let told = self.machines.run(on, HOW_IT_RUNS, &[process, word])?.text();
        let mut lines = told.lines().map(str::to_owned);
        let directory = lines.next().unwrap_or_default();
        let (process, word) = (process.to_owned(), word.to_owned());
        Ok(Undo::Respawn { on: on.to_owned(), process, word, directory, command: lines.collect() })
    }

    fn plan_link(&self, on: &str, interface: &str) -> Result<Undo, Error> {
        let script = "cat \"/sys/class/net/$1/mtu\" && ip -o link show \"$1\"";
        let told = self.machines.run(on, script, &[interface])?.text();
        let (mtu, shown) = told.split_once('\n').unwrap_or_default();
        let flags = shown.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap_or_default().0;
        let mtu = mtu.trim().parse().map_err(|_| Error::Refused(format!("{interface} has no MTU: {told}")))?;
        let up = flags.split(',').any(|flag| flag == "UP");
        Ok(Undo::SetLink { on: on.to_owned(), interface: interface.to_owned(), mtu, up })
    }

    async fn object(&self, object: &ObjectRef) -> Result<Value, Error> {
        let found = self.target.api().await?.get(object).await?;
        found.ok_or_else(|| Error::Refused(format!("there is no {} {}", object.kind, object.name)))
    }

    fn text(&self, on: &str, path: &str) -> Result<String, Error> {
        let content = self.machines.read(on, path)?;
        let content = content.ok_or_else(|| Error::Refused(format!("on {on}: {path} is not there")))?;
        if content.len() > MOST_BYTES {
            return Err(Error::Refused(format!("on {on}: {path} has {} bytes", content.len())));
        }
        String::from_utf8(content).map_err(|_| Error::Refused(format!("on {on}: {path} is no text")))
    }

    fn reissue(&self, on: &str, path: &str, authority: &str, hours: (i64, i64)) -> Result<(), Error> {
        let unusable = |why: String| Error::Malformed { path: path.into(), why };
        let facts = CertificateFacts::read(&self.text(on, path)?).map_err(unusable)?;
        let authority =
            CertificateAuthority::from_pem(&self.text(on, authority)?, &self.text(on, &key_of(authority))?)?;
        let organizations: Vec<&str> = facts.organizations.iter().map(String::as_str).collect();
        let mut request = match facts.is_for_servers {
            true => LeafRequest::server(&facts.common_name, facts.names.dns_names, facts.names.addresses),
            false => LeafRequest::client(&facts.common_name, &organizations),
        };
        if facts.is_for_servers && facts.is_for_clients {
            request = request.for_peers();
        }
        let identity = authority.issue_between(&request, hours.0, hours.1)?;
        self.machines.write(on, &key_of(path), identity.key_pem.as_bytes())?;
        self.machines.write(on, path, identity.certificate_pem.as_bytes())
    }
}

/// Ends a program that somebody starts again.
pub(crate) fn restart(machines: &Machines, on: &str, program: &Program) -> Result<(), Error> {
    machines.run(on, STOP, &[&program.process, &program.command]).map(|_| ())
}

fn node_reference(name: &str) -> ObjectRef {
    ObjectRef { api_version: "v1".into(), kind: "Node".into(), namespace: String::new(), name: name.into() }
}
