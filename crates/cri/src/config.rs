//! The configuration file of a private containerd, as text.
//!
//! Pure: settings in, TOML out, for the shape that containerd 1.x reads (version 2) and the one of 2.x (version 3). It
//! does not find out what the machine can do; `host.rs` does. Invariant: nothing in the file points at a socket, root or
//! state directory of another containerd.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Who manages the cgroups of containers; it must be what the kubelet uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Directories under /sys/fs/cgroup, made by the runtime itself.
    #[default]
    Cgroupfs,
    /// systemd scopes and slices.
    Systemd,
}

/// Version of containerd, as far as it decides the file's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContainerdVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Everything that goes into the file.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) version: ContainerdVersion,
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) opt: PathBuf,
    pub(crate) registries: PathBuf,
    pub(crate) cni_bin_dir: PathBuf,
    pub(crate) cni_conf_dir: PathBuf,
    pub(crate) sandbox_image: String,
    pub(crate) snapshotter: String,
    pub(crate) cgroup_driver: CgroupDriver,
    pub(crate) restrict_oom_score_adj: bool,
    pub(crate) disable_apparmor: bool,
}

impl ContainerdVersion {
    /// Reads the answer of `containerd --version`: program, package, version, commit.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let version = text.split_whitespace().nth(2)?.trim_start_matches('v');
        let mut numbers = version.split(|character: char| !character.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

/// Plugins that are of no use here, and of which some load kernel modules when they start.
const DISABLED_PLUGINS: [&str; 6] = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.internal.v1.restart",
];

/// The whole file.
pub(crate) fn render(settings: &Settings) -> String {
    let mut text = String::from("# Written by kedge at every start; changes are lost.\n");
    let disabled = DISABLED_PLUGINS.map(quote).join(", ");
    let shape = if settings.version.major >= 2 { 3 } else { 2 };
    line(&mut text, "version", &shape.to_string());
    line(&mut text, "root", &path(&settings.root));
    line(&mut text, "state", &path(&settings.state));
    line(&mut text, "disabled_plugins", &format!("[{disabled}]"));
    table(&mut text, "grpc");
    line(&mut text, "address", &path(&settings.socket));
    table(&mut text, "debug");
    line(&mut text, "level", &quote("info"));
    table(&mut text, &plugin("io.containerd.internal.v1.opt"));
    line(&mut text, "path", &path(&settings.opt));
    if settings.version.major >= 2 {
        render_cri_v3(&mut text, settings);
    } else {
        render_cri_v2(&mut text, settings);
    }
    text
}

/// containerd 1.x: one CRI plugin.
fn render_cri_v2(text: &mut String, settings: &Settings) {
    let cri = plugin("io.containerd.grpc.v1.cri");
    table(text, &cri);
    line(text, "sandbox_image", &quote(&settings.sandbox_image));
    streaming(text);
    line(text, "restrict_oom_score_adj", &settings.restrict_oom_score_adj.to_string());
    line(text, "disable_apparmor", &settings.disable_apparmor.to_string());
    table(text, &format!("{cri}.cni"));
    line(text, "bin_dir", &path(&settings.cni_bin_dir));
    line(text, "conf_dir", &path(&settings.cni_conf_dir));
    table(text, &format!("{cri}.registry"));
    line(text, "config_path", &path(&settings.registries));
    table(text, &format!("{cri}.containerd"));
    line(text, "snapshotter", &quote(&settings.snapshotter));
    line(text, "default_runtime_name", &quote("runc"));
    runc(text, settings, &cri);
}

/// containerd 2.x: one plugin for images, one for the runtime, one for the server. NRI is off because its socket is one
/// for the whole machine.
fn render_cri_v3(text: &mut String, settings: &Settings) {
    let images = plugin("io.containerd.cri.v1.images");
    let runtime = plugin("io.containerd.cri.v1.runtime");
    table(text, &images);
    line(text, "snapshotter", &quote(&settings.snapshotter));
    table(text, &format!("{images}.pinned_images"));
    line(text, "sandbox", &quote(&settings.sandbox_image));
    table(text, &format!("{images}.registry"));
    line(text, "config_path", &path(&settings.registries));
    table(text, &runtime);
    line(text, "restrict_oom_score_adj", &settings.restrict_oom_score_adj.to_string());
    line(text, "disable_apparmor", &settings.disable_apparmor.to_string());
    table(text, &format!("{runtime}.cni"));
    // 2.1 takes several directories and deprecates the one.
    if settings.version >= (ContainerdVersion { major: 2, minor: 1 }) {
        line(text, "bin_dirs", &format!("[{}]", path(&settings.cni_bin_dir)));
    } else {
        line(text, "bin_dir", &path(&settings.cni_bin_dir));
    }
    line(text, "conf_dir", &path(&settings.cni_conf_dir));
    table(text, &format!("{runtime}.containerd"));
    line(text, "default_runtime_name", &quote("runc"));
    runc(text, settings, &runtime);
    table(text, &plugin("io.containerd.grpc.v1.cri"));
    streaming(text);
    table(text, &plugin("io.containerd.nri.v1.nri"));
    line(text, "disable", "true");
}

fn streaming(text: &mut String) {
    line(text, "stream_server_address", &quote("127.0.0.1"));
    line(text, "stream_server_port", &quote("0"));
}

/// runc keeps its state below ours: its default directory is that of the machine's containerd.
fn runc(text: &mut String, settings: &Settings, cri: &str) {
    let systemd = settings.cgroup_driver == CgroupDriver::Systemd;
    table(text, &format!("{cri}.containerd.runtimes.runc"));
    line(text, "runtime_type", &quote("io.containerd.runc.v2"));
    table(text, &format!("{cri}.containerd.runtimes.runc.options"));
    line(text, "SystemdCgroup", &systemd.to_string());
    line(text, "Root", &path(&settings.state.join("runc")));
}

fn plugin(id: &str) -> String {
    format!("plugins.{}", quote(id))
}

fn table(text: &mut String, name: &str) {
    writeln!(text, "\n[{name}]").expect("writing to a String cannot fail");
}

fn line(text: &mut String, key: &str, value: &str) {
    writeln!(text, "{key} = {value}").expect("writing to a String cannot fail");
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                write!(quoted, "\\u{:04X}", u32::from(control)).expect("writing to a String cannot fail");
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(major: u32, minor: u32) -> Settings {
        Settings {
            version: ContainerdVersion { major, minor },
            root: "/d/root".into(),
            state: "/d/state".into(),
            socket: "/d/c.sock".into(),
            opt: "/d/opt".into(),
            registries: "/d/certs.d".into(),
            cni_bin_dir: "/usr/lib/cni".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            sandbox_image: "registry.k8s.io/pause:3.10".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            cgroup_driver: CgroupDriver::Systemd,
            restrict_oom_score_adj: true,
            disable_apparmor: false,
        }
    }

    #[test]
    fn versions() {
        let check = |text: &str, expected: Option<(u32, u32)>| {
            let parsed = ContainerdVersion::parse(text).map(|version| (version.major, version.minor));
            assert_eq!(parsed, expected, "{text}");
        };
        check("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", Some((1, 6)));
        check("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4", Some((2, 1)));
        check("containerd containerd.io 1.7.27 05044ec0a9a7", Some((1, 7)));
        check("containerd containerd.io v2.0.0-rc.1 x", Some((2, 0)));
        check("containerd", None);
        check("", None);
    }

    #[test]
    fn version_1_has_one_cri_plugin() {
        let text = render(&settings(1, 6));
        let cri = "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"registry.k8s.io/pause:3.10\"\n";
        assert!(text.contains("\nversion = 2\n"), "{text}");
        assert!(text.contains(cri), "{text}");
        assert!(text.contains("restrict_oom_score_adj = true\ndisable_apparmor = false\n"), "{text}");
        assert!(text.contains("SystemdCgroup = true\nRoot = \"/d/state/runc\"\n"), "{text}");
        assert!(!text.contains("cri.v1"), "{text}");
    }

    #[test]
    fn version_2_has_the_split_plugins() {
        let old = render(&settings(2, 0));
        let new = render(&settings(2, 1));
        assert!(new.contains("\nversion = 3\n"), "{new}");
        assert!(new.contains("cri.v1.images\".pinned_images]\nsandbox = \"registry.k8s.io/pause:3.10\"\n"), "{new}");
        assert!(new.contains("bin_dirs = [\"/usr/lib/cni\"]\n"), "{new}");
        assert!(old.contains("bin_dir = \"/usr/lib/cni\"\n"), "{old}");
        assert!(new.contains("[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n"), "{new}");
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quote("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000A\"");
    }
}
