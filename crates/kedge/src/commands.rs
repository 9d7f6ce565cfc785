//! One file for each command.

pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod components;
pub(crate) mod config;
pub(crate) mod demo_app;
pub(crate) mod demo_manager;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod drill;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod kubeconfig;
pub(crate) mod kubelet;
pub(crate) mod man;
pub(crate) mod network_ready;
pub(crate) mod node;
pub(crate) mod reset;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod version;
