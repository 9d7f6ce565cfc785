//! How a step is taken back. Written to the journal before the step is done.
//!
//! Invariant: each may be done again, and also where the step was done in part, or never.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::action::{ObjectRef, Program};
use crate::api::Api;
use crate::breaking::restart;
use crate::error::Error;
use crate::machines::Machines;
use crate::target::Target;

const POLL: Duration = Duration::from_millis(200);
const GONE_PATIENCE: Duration = Duration::from_secs(60);

/// One step back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Undo {
    /// Puts the kept copy of a file in its place again; where there was no file, removes it.
    RestoreFile { on: String, path: String, kept: Option<String> },
    /// Ends a program that somebody starts again: it has read what was broken.
    Restart { on: String, program: Program },
    /// Moves back what was moved away.
    MoveBack { on: String, from: String, to: String },
    /// Removes a file or directory that is empty.
    RemoveEmpty { on: String, path: String },
    /// Lets processes go on.
    Continue { on: String, process: String },
    /// Ends what stops processes again and again, and lets them go on.
    EndSlowing { on: String, process: String, mark: String },
    /// Ends a process that the drill started.
    EndOwn { on: String, mark: String },
    /// Starts a process again that was ended.
    Respawn {
        on: String,
        process: String,
        #[serde(default)]
        word: String,
        directory: String,
        command: Vec<String>,
    },
    /// Takes an own file system off a directory.
    Unmount { on: String, path: String },
    /// Takes the alarms off the machine's etcd, once none runs with this quota in bytes any more.
    DisarmStore { on: String, quota: u64 },
    /// Deletes an own table of packet rules.
    DeleteTable { on: String, table: String },
    /// An interface as it was.
    SetLink { on: String, interface: String, mtu: u32, up: bool },
    /// A setting of the kernel as it was.
    SetSysctl { on: String, name: String, value: String },
    /// Plugs a cable in.
    PlugIn { on: String },
    /// Starts a test host, or kedge on it.
    StartNode { on: String },
    /// Deletes an object that the drill made.
    DeleteOwn { object: ObjectRef, run: String },
    /// Makes an object again that was deleted.
    Recreate { object: Value },
    /// Fields of an object as they were, as a merge patch.
    RestoreFields { object: ObjectRef, patch: Value },
}

/// Copies a file back under a hidden name, which no directory of static pods reads, and moves it into place.
const RESTORE: &str = "set -e; d=$(dirname \"$2\"); t=\"$d/.$(basename \"$2\").kedge-drill\"; mkdir -p \"$d\"; \
    cmp -s \"$1\" \"$2\" && exit 0; cp -p \"$1\" \"$t\"; sync \"$t\"; mv -f \"$t\" \"$2\"";
const END_SLOWING: &str = "rm -f \"$2\"; p=$(cat \"$2.pid\" 2>/dev/null) && { i=0; while kill -0 \"$p\" 2>/dev/null && \
    [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; }; rm -f \"$2.pid\"; \
    for p in $(pgrep -x \"$1\"); do kill -CONT \"$p\"; done; true";
/// Of its arguments, the second is the second word of the command lines that count; any does where it is empty.
const RESPAWN: &str = "n=$1; w=$2; d=$3; shift 3; for p in $(pgrep -x \"$n\"); do [ -z \"$w\" ] && exit 0; \
    [ \"$(tr '\\0' '\\n' < \"/proc/$p/cmdline\" | sed -n 2p)\" = \"$w\" ] && exit 0; done; cd \"$d\"; \
    setsid \"$@\" </dev/null >/dev/null 2>&1 &";

/// Of an etcd that is being started anew; a minute at most.
const DISARM: &str = "ca=/etc/kubernetes/pki/etcd; i=0; while [ $i -lt 240 ]; do i=$((i+1)); p=$(pgrep -x etcd | head -n 1); \
    [ -n \"$p\" ] && ! tr '\\0' '\\n' < \"/proc/$p/cmdline\" | grep -qxe \"--quota-backend-bytes=$1\" && \
    ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:2379 --cacert $ca/ca.crt --cert $ca/healthcheck-client.crt \
    --key $ca/healthcheck-client.key alarm disarm > /dev/null 2>&1 && exit 0; sleep 0.25; done; \
    echo 'etcd did not take its alarms off; is etcdctl installed (etcd-client)?' >&2; exit 1";

/// Takes one step back.
pub(crate) async fn undo(step: &Undo, target: &Target, machines: &Machines) -> Result<(), Error> {
    match step {
        Undo::DeleteOwn { object, run } => delete_own(&target.api().await?, object, run).await,
        Undo::Recreate { object } => target.api().await?.create_if_absent(object).await,
        Undo::RestoreFields { object, patch } => restore(&target.api().await?, object, patch).await,
        Undo::PlugIn { on } => target.plug_in(on),
        Undo::StartNode { on } => target.start_node(on),
        Undo::Restart { on, program } => restart(machines, on, program),
        local => undo_on_machine(local, machines),
    }
}

fn undo_on_machine(step: &Undo, machines: &Machines) -> Result<(), Error> {
    let done = match step {
        Undo::RestoreFile { on, path, kept: Some(kept) } => machines.run(on, RESTORE, &[kept, path]),
        Undo::RestoreFile { on, path, kept: None } => machines.run(on, "rm -f \"$1\"", &[path]),
        Undo::MoveBack { on, from, to } => {
            machines.run(on, "[ ! -e \"$1\" ] || [ -e \"$2\" ] || mv -T \"$1\" \"$2\"", &[from, to])
        }
        Undo::RemoveEmpty { on, path } => machines.run(
            on,
            "if [ -d \"$1\" ]; then rmdir \"$1\" 2>/dev/null; elif [ -f \"$1\" ] && [ ! -s \"$1\" ]; then rm -f \"$1\"; fi; true",
            &[path],
        ),
        Undo::Continue { on, process } => {
            machines.run(on, "for p in $(pgrep -x \"$1\"); do kill -CONT \"$p\"; done; true", &[process])
        }
        Undo::EndSlowing { on, process, mark } => machines.run(on, END_SLOWING, &[process, mark]),
        Undo::EndOwn { on, mark } => machines.run(
            on,
            "p=$(cat \"$1\" 2>/dev/null) && grep -q kedge \"/proc/$p/cmdline\" 2>/dev/null && kill -9 \"$p\"; rm -f \"$1\"",
            &[mark],
        ),
        Undo::Respawn { on, process, word, directory, command } => {
            let words = [process, word, directory].into_iter().chain(command).map(String::as_str).collect::<Vec<_>>();
            machines.run(on, RESPAWN, &words)
        }
        Undo::Unmount { on, path } => machines.run(
            on,
            "while grep -q \"^kedge-drill $1 \" /proc/mounts; do umount -l \"$1\" || exit 1; done",
            &[path],
        ),
        Undo::DisarmStore { on, quota } => machines.run(on, DISARM, &[&quota.to_string()]),
        Undo::DeleteTable { on, table } => {
            machines.run(on, "! nft list table inet \"$1\" >/dev/null 2>&1 || nft delete table inet \"$1\"", &[table])
        }
        Undo::SetLink { on, interface, mtu, up } => {
            let state = if *up { "up" } else { "down" };
            machines.run(on, "ip link set \"$1\" mtu \"$2\" \"$3\"", &[interface, &mtu.to_string(), state])
        }
        Undo::SetSysctl { on, name, value } => {
            machines.run(on, "printf %s \"$2\" > \"/proc/sys/$1\"", &[&name.replace('.', "/"), value])
        }
        _ => return Ok(()),
    };
    done.map(|_| ())
}

/// Deletes what carries the mark of this run, and waits until it is gone.
async fn delete_own(api: &Api, object: &ObjectRef, run: &str) -> Result<(), Error> {
    let deadline = Instant::now() + GONE_PATIENCE;
    loop {
        let Some(found) = api.get(object).await? else { return Ok(()) };
        if found["metadata"]["labels"][crate::api::MARK] != run {
            return Ok(());
        }
        if !found["metadata"]["finalizers"].is_null() {
            api.merge(object, &json!({"metadata": {"finalizers": null}})).await?;
        }
        if found["metadata"]["deletionTimestamp"].is_null() {
            api.delete(object).await?;
        }
        if Instant::now() > deadline {
            let what = format!("DELETE {} {}", object.kind, object.name);
            return Err(Error::Api { what, why: "it is still there".to_owned() });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// An object that is gone has no fields.
async fn restore(api: &Api, object: &ObjectRef, patch: &Value) -> Result<(), Error> {
    match api.get(object).await? {
        Some(_) => api.merge(object, patch).await,
        None => Ok(()),
    }
}

/// The merge patch that takes another one back: every field that it names as the object has it now.
pub(crate) fn plan_restore(object: &Value, patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, field)| {
                    let own = object.get(name);
                    let back = match (own, field) {
                        (None, _) => Value::Null,
                        (Some(own @ Value::Object(_)), Value::Object(_)) => plan_restore(own, field),
                        (Some(own), _) => own.clone(),
                    };
                    (name.clone(), back)
                })
                .collect(),
        ),
        _ => object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_taken_back_field_by_field() {
        let object = json!({"a": {"b": 1, "c": [1]}, "d": 2, "e": {"f": 1}});
        for (patch, back) in [
            (json!({"a": {"b": 5}}), json!({"a": {"b": 1}})),
            (json!({"a": {"c": []}}), json!({"a": {"c": [1]}})),
            (json!({"x": {"y": 1}}), json!({"x": null})),
            (json!({"a": {"z": 1}}), json!({"a": {"z": null}})),
            (json!({"e": null}), json!({"e": {"f": 1}})),
        ] {
            assert_eq!(plan_restore(&object, &patch), back);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let step = Undo::SetLink { on: "a".into(), interface: "eth0".into(), mtu: 1500, up: true };
        let text = serde_json::to_string(&step).expect("it is JSON");
        assert_eq!(serde_json::from_str::<Undo>(&text).expect("it is read"), step);
    }
}
