//! What a drill does: a bounded set of actions, each of which can be taken back.
//!
//! Pure: descriptions only. How each is undone is decided in `breaking.rs`, before it is done.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::probe::Probe;

/// One step of breaking. `on` is the machine's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// Waits until something is seen, and changes nothing: what is broken next must have worked before.
    Await {
        /// What.
        until: Probe,
        /// For so many seconds at most.
        within: u64,
    },
    /// Replaces texts of a file; each must be there.
    EditFile {
        /// The machine.
        on: String,
        /// The file.
        path: String,
        /// What by what, in order.
        replace: Vec<Replace>,
        /// Files or directories that others will make because of it; removed again where they are empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        makes: Vec<String>,
        /// Who reads it at its start only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restarts: Option<Program>,
    },
    /// Writes a file, or another content into one.
    WriteFile {
        /// The machine.
        on: String,
        /// The file.
        path: String,
        /// All of its content.
        content: String,
        /// Directories that are made for it, innermost first; removed again where they are empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        makes: Vec<String>,
    },
    /// Copies a file.
    CopyFile {
        /// The machine.
        on: String,
        /// The file.
        path: String,
        /// The copy; nothing may be there.
        to: String,
    },
    /// Moves a file or directory out of the way.
    MoveFile {
        /// The machine.
        on: String,
        /// What.
        path: String,
    },
    /// Replaces a certificate (and its key) by one of the same authority with another validity.
    ReissueCertificate {
        /// The machine.
        on: String,
        /// The certificate; its key lies beside it with `.key`.
        path: String,
        /// The authority's certificate; its key lies beside it with `.key`.
        authority: String,
        /// Hours from now from which on it is valid.
        valid_from_hours: i64,
        /// Hours from now until which it is valid.
        valid_to_hours: i64,
    },
    /// Stops processes without ending them: they hang.
    PauseProcess {
        /// The machine.
        on: String,
        /// The program's name, as `/proc/<pid>/comm` has it.
        process: String,
    },
    /// Stops processes for most of the time, again and again: they answer late.
    SlowProcess {
        /// The machine.
        on: String,
        /// The program's name.
        process: String,
        /// For so many milliseconds it is stopped.
        stopped: u32,
        /// For so many milliseconds it runs.
        running: u32,
    },
    /// Ends processes that nobody restarts; they are started again with their own command line.
    StopProcess {
        /// The machine.
        on: String,
        /// The program's name.
        process: String,
        /// Only those whose command line has this as its second word.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        command: String,
        /// Whether what was stopped before them starts them again, once it is started again itself.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kept: bool,
    },
    /// Holds a TCP port, so that nobody else can listen on it.
    HoldPort {
        /// The machine.
        on: String,
        /// The port, on all addresses.
        port: u16,
    },
    /// Puts a small empty file system over a directory, and fills it.
    FillDisk {
        /// The machine.
        on: String,
        /// The directory.
        path: String,
        /// Its size; at most 256.
        mebibytes: u16,
        /// Whether it is filled with empty files, so that bytes are left, and no file can be made.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_files: bool,
    },
    /// Gives the etcd of a static pod a quota that it has used up: it takes no writes from the next one on.
    LimitStore {
        /// The machine.
        on: String,
        /// Its manifest.
        path: String,
    },
    /// Drops packets to and from a port.
    BlockPort {
        /// The machine.
        on: String,
        /// `tcp` or `udp`.
        protocol: String,
        /// The port.
        port: u16,
        /// Of this peer alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
    },
    /// Another size of packets for an interface.
    SetMtu {
        /// The machine.
        on: String,
        /// The interface.
        interface: String,
        /// In bytes.
        mtu: u32,
    },
    /// Switches an interface off.
    LinkDown {
        /// The machine.
        on: String,
        /// The interface.
        interface: String,
    },
    /// Sets a setting of the kernel, of those that each network namespace has of its own.
    SetSysctl {
        /// The machine.
        on: String,
        /// As in `net.ipv4.ip_forward`.
        name: String,
        /// Its text.
        value: String,
    },
    /// Pulls the cable of a test host.
    PullCable {
        /// The machine.
        on: String,
    },
    /// Switches a test host off, or ends kedge on it.
    StopNode {
        /// The machine.
        on: String,
        /// How.
        how: Stop,
    },
    /// Switches a test host on again, or starts kedge on it.
    StartNode {
        /// The machine.
        on: String,
    },
    /// Makes an object.
    CreateObject {
        /// The whole of it.
        object: Value,
    },
    /// Deletes an object.
    DeleteObject {
        /// Which.
        object: ObjectRef,
    },
    /// Changes fields of an object by a merge patch.
    PatchObject {
        /// Which.
        object: ObjectRef,
        /// The patch.
        patch: Value,
    },
    /// Adds a taint to a node.
    TaintNode {
        /// The node.
        node: String,
        /// Its key.
        key: String,
        /// Its value.
        #[serde(default)]
        value: String,
        /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
        effect: String,
    },
}

/// A program that somebody starts again whenever it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Program {
    /// Its name, as `/proc/<pid>/comm` has it.
    pub process: String,
    /// The second word of its command line.
    pub command: String,
}

/// A text and the one in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replace {
    /// What must be there.
    pub from: String,
    /// What is there afterwards.
    pub to: String,
}

/// How a test host is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stop {
    /// kedge ends; containers run on.
    Agent,
    /// Everything ends in order.
    Shutdown,
    /// Everything ends at once.
    Power,
}

/// An object of the API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty where the kind has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Action {
    /// The machine on which it is done, if it is done on one.
    pub fn machine(&self) -> Option<&str> {
        match self {
            Self::EditFile { on, .. }
            | Self::WriteFile { on, .. }
            | Self::CopyFile { on, .. }
            | Self::MoveFile { on, .. }
            | Self::ReissueCertificate { on, .. }
            | Self::PauseProcess { on, .. }
            | Self::SlowProcess { on, .. }
            | Self::StopProcess { on, .. }
            | Self::HoldPort { on, .. }
            | Self::FillDisk { on, .. }
            | Self::LimitStore { on, .. }
            | Self::BlockPort { on, .. }
            | Self::SetMtu { on, .. }
            | Self::LinkDown { on, .. }
            | Self::SetSysctl { on, .. }
            | Self::PullCable { on }
            | Self::StopNode { on, .. }
            | Self::StartNode { on } => Some(on),
            Self::Await { .. }
            | Self::CreateObject { .. }
            | Self::DeleteObject { .. }
            | Self::PatchObject { .. }
            | Self::TaintNode { .. } => None,
        }
    }

    /// In one line, for a dry run.
    pub fn told(&self) -> String {
        let text = serde_json::to_value(self).unwrap_or_default();
        let fields = text.as_object().into_iter().flatten().filter(|(name, _)| *name != "do");
        let fields: Vec<String> = fields.map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {}", text["do"].as_str().unwrap_or_default(), fields.join(" "))
    }
}
