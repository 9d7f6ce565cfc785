//! Breaking: how each action is taken back (decided from what is there now), and how it is done.

use std::time::Duration;

use kedge_pki::{CertificateAuthority, CertificateFacts, LeafRequest};
use serde_json::{Value, json};

use crate::action::{Action, ObjectRef, Replace};
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
            Action::EditFile { on, path, makes, .. } => {
                let mut steps = vec![self.keep(on, path)?];
                let absent = makes.iter().map(|made| self.absent(on, made)).collect::<Result<Vec<_>, _>>()?;
                // Whoever made them must have seen the file as it was before they go.
                steps.extend(absent.into_iter().flatten());
                steps
            }
            Action::WriteFile { on, path, makes, .. } => {
                let mut steps = vec![self.keep(on, path)?];
                let absent = makes.iter().map(|made| self.absent(on, made)).collect::<Result<Vec<_>, _>>()?;
                steps.extend(absent.into_iter().flatten());
                steps
            }
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
            Action::EditFile { on, path, replace, .. } => {
                let content = self.text(on, path)?;
                let edited =
                    edit(&content, replace).map_err(|why| Error::Refused(format!("on {on}: {path}: {why}")))?;
                self.machines.write(on, path, edited.as_bytes())
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

/// Ends the processes of a name, of which the second word of the command line may be asked for.
const STOP: &str = "for p in $(pgrep -x \"$1\"); do \
    [ -z \"$2\" ] || [ \"$(tr '\\0' '\\n' < \"/proc/$p/cmdline\" | sed -n 2p)\" = \"$2\" ] || continue; kill -9 \"$p\"; done";
/// The directory and the words of the first such process.
const HOW_IT_RUNS: &str = "for p in $(pgrep -x \"$1\"); do \
    [ -z \"$2\" ] || [ \"$(tr '\\0' '\\n' < \"/proc/$p/cmdline\" | sed -n 2p)\" = \"$2\" ] || continue; \
    readlink \"/proc/$p/cwd\" && tr '\\0' '\\n' < \"/proc/$p/cmdline\"; exit; done; exit 1";
const MOVE: &str = "set -e; umask 077; mkdir -p \"$(dirname \"$2\")\"; mv -T \"$1\" \"$2\"";
/// Ends by itself after half an hour, or once its mark is gone.
const SLOW: &str = "set -e; mkdir -p \"$(dirname \"$2\")\"; : > \"$2\"; ( e=$(( $(date +%s) + 1800 )); \
    while [ -e \"$2\" ] && [ \"$(date +%s)\" -lt $e ]; do for p in $(pgrep -x \"$1\"); do kill -STOP $p; done; sleep \"$3\"; \
    for p in $(pgrep -x \"$1\"); do kill -CONT $p; done; sleep \"$4\"; done; ) </dev/null >/dev/null 2>&1 & echo $! > \"$2.pid\"";
const HOLD: &str = "set -e; mkdir -p \"$(dirname \"$1\")\"; setsid \"$2\" demo-app --listen \"0.0.0.0:$3\" \
    </dev/null >/dev/null 2>&1 & echo $! > \"$1\"";
const FILL: &str =
    "set -e; mount -t tmpfs -o \"$2\" kedge-drill \"$1\"; cat /dev/zero > \"$1/.kedge-drill-fill\" 2>/dev/null || true";

/// As many as a small file system takes; the last ones fail.
const FILL_BY_FILES: &str = "set -e; mount -t tmpfs -o \"$2\" kedge-drill \"$1\"; mkdir \"$1/.kedge-drill-fill\"; i=0; \
    while [ $i -lt 4096 ] && true 2>/dev/null > \"$1/.kedge-drill-fill/$i\"; do i=$((i+1)); done";

fn node_reference(name: &str) -> ObjectRef {
    ObjectRef { api_version: "v1".into(), kind: "Node".into(), namespace: String::new(), name: name.into() }
}

fn key_of(certificate: &str) -> String {
    format!("{}.key", certificate.strip_suffix(".crt").unwrap_or(certificate))
}

/// Milliseconds as `sleep` reads them.
fn seconds(milliseconds: u32) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// Only settings that each network namespace has of its own: others belong to the whole machine.
fn sysctl_path(name: &str) -> Result<String, Error> {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    match is_plain && name.starts_with("net.") {
        true => Ok(name.replace('.', "/")),
        false => Err(Error::Refused(format!("{name} is not a setting of the network"))),
    }
}

fn edit(content: &str, replace: &[Replace]) -> Result<String, String> {
    replace.iter().try_fold(content.to_owned(), |text, one| match text.contains(&one.from) {
        true => Ok(text.replace(&one.from, &one.to)),
        false => Err(format!("{:?} is not in it", one.from)),
    })
}

fn rules(table: &str, protocol: &str, port: u16, peer: Option<&str>) -> Result<String, Error> {
    if !matches!(protocol, "tcp" | "udp") {
        return Err(Error::Refused(format!("{protocol} has no ports")));
    }
    let peer = peer.map(|peer| peer.parse::<std::net::IpAddr>()).transpose();
    let peer = peer.map_err(|error| Error::Refused(format!("the peer of a blocked port: {error}")))?;
    let chain = |hook: &str, end: &str| {
        let family = |address: std::net::IpAddr| if address.is_ipv4() { "ip" } else { "ip6" };
        let of = peer.map(|address| format!("{} {end} {address} ", family(address))).unwrap_or_default();
        format!(
            "  chain {hook} {{ type filter hook {hook} priority -300; {of}{protocol} dport {port} drop; {of}{protocol} sport {port} drop; }}\n"
        )
    };
    Ok(format!("table inet {table} {{\n{}{}}}\n", chain("input", "saddr"), chain("output", "daddr")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_replaced_only_where_it_is_there() {
        let replace = |from: &str| vec![Replace { from: from.to_owned(), to: "x".to_owned() }];
        assert_eq!(edit("a b a", &replace("a")), Ok("x b x".to_owned()));
        assert!(edit("a b a", &replace("c")).is_err());
    }

    #[test]
    fn settings_of_the_whole_machine_are_refused() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").expect("it is one"), "net/ipv4/ip_forward");
        for name in ["kernel.panic", "net.ipv4/../../kernel", "fs.inotify.max_user_instances"] {
            assert!(sysctl_path(name).is_err(), "{name}");
        }
    }

    #[test]
    fn rules_are_about_a_port_and_a_peer() {
        let text = rules("t", "tcp", 179, Some("10.0.0.1")).expect("it is right");
        assert!(text.contains("ip saddr 10.0.0.1 tcp dport 179 drop"), "{text}");
        assert!(rules("t", "tcp", 1, None).expect("it is right").contains("; tcp dport 1 drop"));
        assert!(rules("t", "icmp", 1, None).is_err() && rules("t", "tcp", 1, Some("x; drop")).is_err());
    }

    #[test]
    fn times_and_keys_are_written_as_others_read_them() {
        assert_eq!((seconds(50), seconds(1900)), ("0.050".to_owned(), "1.900".to_owned()));
        assert_eq!(key_of("/a/b.crt"), "/a/b.key");
    }
}
