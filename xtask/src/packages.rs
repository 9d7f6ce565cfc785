//! What Kedge and its tests need from Debian's packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{has_program, quiet, step};

/// A need: satisfied by a program or a file, and by which package if it is missing.
pub struct Need {
    package: &'static str,
    satisfied: fn() -> bool,
}

/// What a node needs.
pub const NODE: &[Need] = &[
    Need { package: "containerd", satisfied: || has_program("containerd") && has_program("ctr") },
    Need { package: "runc", satisfied: || has_program("runc") },
    Need { package: "containernetworking-plugins", satisfied: has_cni_plugins },
    Need { package: "nftables", satisfied: || has_program("nft") },
    Need { package: "iproute2", satisfied: || has_program("ip") },
    Need { package: "conntrack", satisfied: || has_program("conntrack") },
    Need { package: "kubernetes-client", satisfied: || has_program("kubectl") },
];

/// What building needs.
pub const BUILD: &[Need] = &[
    Need { package: "gcc", satisfied: || has_program("cc") },
    Need { package: "libc6-dev", satisfied: || Path::new("/usr/include/stdio.h").exists() },
    // A build script of the runtime interface turns its protocol description into code.
    Need { package: "protobuf-compiler", satisfied: || has_program("protoc") },
    Need { package: "mold", satisfied: || has_program("mold") },
];

/// What the tests need beyond that.
pub const TEST: &[Need] = &[
    Need { package: "bird2", satisfied: || has_program("bird") },
    Need { package: "busybox-static", satisfied: || Path::new("/bin/busybox").exists() },
    Need { package: "curl", satisfied: || has_program("curl") },
    Need { package: "etcd-client", satisfied: || has_program("etcdctl") },
    Need { package: "etcd-server", satisfied: || has_program("etcd") },
    // Another clock for a whole process.
    Need { package: "faketime", satisfied: || has_program("faketime") },
    Need { package: "iputils-ping", satisfied: || has_program("ping") },
    Need { package: "nodejs", satisfied: || has_program("node") },
    Need { package: "npm", satisfied: || has_program("npm") },
    Need { package: "openssl", satisfied: || has_program("openssl") },
    Need { package: "python3-venv", satisfied: || has_program("python3") && has_program("pip3") },
    Need { package: "util-linux", satisfied: || has_program("nsenter") },
];

fn has_cni_plugins() -> bool {
    ["/opt/cni/bin", "/usr/lib/cni"].iter().any(|directory| Path::new(directory).join("bridge").exists())
}

/// The packages that are missing for these needs.
pub fn missing(needs: &[&[Need]]) -> Vec<&'static str> {
    needs.iter().copied().flatten().filter(|need| !(need.satisfied)()).map(|need| need.package).collect()
}

/// Installs what is missing for these needs.
pub fn ensure(needs: &[&[Need]]) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !has_program("apt-get") {
        bail!(
            "these Debian packages are missing: {list}\n  install them (or what they hold) by hand, then run this again"
        );
    }
    step(&format!("install {list}"), || {
        let apt = |words: &[&str]| {
            let mut command = Command::new("apt-get");
            command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
            quiet(&mut command)
        };
        // Lists may be fresh already; an update that fails shows in the installation.
        let _ = apt(&["update"]);
        let mut words = vec!["install", "-y", "--no-install-recommends"];
        words.extend(&packages);
        apt(&words).with_context(|| {
            format!("`apt-get install {list}` failed; install the packages by hand, then run this again")
        })
    })
}
