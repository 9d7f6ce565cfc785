//! What must be true of the machine before anything on it is changed.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::packages;
use crate::step::has_program;

/// Whether this process is root.
pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Refuses machines on which `kedge up` cannot work, before anything is changed.
pub fn check_for_node(secure_port: u16) -> Result<()> {
    if !is_root() {
        bail!(
            "a node needs root: it makes network interfaces, packet rules and cgroups\n  run `sudo -E cargo xtask up`, \
             or try the control plane alone without root: `cargo run --release -p kedge -- up --control-plane-only`"
        );
    }
    if !packages::missing(&[packages::NODE, packages::BUILD]).is_empty() && !has_program("apt-get") {
        let list = packages::missing(&[packages::NODE, packages::BUILD]).join(" ");
        bail!("no apt-get on this machine, and these Debian packages (or what they hold) are missing: {list}");
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && !Path::new("/sys/fs/cgroup/memory").exists() {
        bail!(
            "no cgroups under /sys/fs/cgroup: containers cannot be limited\n  mount them (`mount -t cgroup2 none \
             /sys/fs/cgroup`), or run on a machine or VM that has them"
        );
    }
    if let Err(error) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, secure_port)) {
        bail!(
            "port {secure_port} cannot be used for the API server ({error})\n  see who has it with `ss -ltnp 'sport = \
             :{secure_port}'`; if it is kedge, `kedge status` tells about it and `kedge down` ends it; or choose another \
             with `--secure-port`"
        );
    }
    Ok(())
}
