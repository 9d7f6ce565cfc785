//! What this machine lets a containerd do: capabilities, AppArmor, overlay mounts, programs on PATH.
//!
//! It only asks; the one thing it does is an overlay mount of empty directories, undone at once. Invariant: a question
//! that cannot be answered is answered with the choice that works everywhere.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// `CAP_SYS_RESOURCE`, without which nobody may lower an OOM score.
const CAP_SYS_RESOURCE: u32 = 24;
/// Where Debian keeps what a service needs; a user's PATH often lacks the sbin parts, and CNI plugins call `iptables`.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a child of this process may lower OOM scores.
pub(crate) fn can_lower_oom_score() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| has_capability(&status, CAP_SYS_RESOURCE))
}

fn has_capability(proc_status: &str, capability: u32) -> bool {
    ["CapEff:", "CapBnd:"].iter().all(|set| {
        proc_status
            .lines()
            .find_map(|line| line.strip_prefix(set))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & (1 << capability) != 0)
    })
}

/// Whether AppArmor profiles can be loaded: the kernel has it on, and its parser is installed.
pub(crate) fn apparmor_usable() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    enabled && find_program("apparmor_parser").is_some()
}

/// PATH for containerd and everything below it.
pub(crate) fn service_path() -> OsString {
    match std::env::var_os("PATH") {
        Some(mut path) if !path.is_empty() => {
            path.push(":");
            path.push(SYSTEM_PATH);
            path
        }
        _ => OsString::from(SYSTEM_PATH),
    }
}

/// The program's file on the service PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&service_path()).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Whether an overlay can be mounted with its upper directory below `dir`. It cannot where `dir` itself is on an overlay,
/// or where the kernel lacks it.
pub(crate) fn overlay_works(dir: &Path) -> bool {
    let probe = dir.join(format!(".overlay-probe-{}", std::process::id()));
    let works = try_overlay(&probe).is_ok();
    // A directory that stays behind is empty and harmless, and the next start of this pid's number removes it.
    let _ = fs::remove_dir_all(&probe);
    works
}

fn try_overlay(probe: &Path) -> io::Result<()> {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| probe.join(name));
    for dir in [&lower, &upper, &work, &merged] {
        fs::create_dir_all(dir)?;
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    umount2(&merged, MntFlags::MNT_DETACH)?;
    Ok(())
}

/// The kernel's id of this boot; empty where it has none.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Mount points at or below `dir`, deepest last.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse_mounts(&table).into_iter().filter(|point| point.starts_with(dir)).collect()
}

fn parse_mounts(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point))).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        let check = |effective: &str, bounding: &str, expected: bool| {
            let status = format!("Name:\tx\nCapEff:\t{effective}\nCapBnd:\t{bounding}\n");
            assert_eq!(has_capability(&status, CAP_SYS_RESOURCE), expected, "{effective} {bounding}");
        };
        check("000001ffffffffff", "000001ffffffffff", true);
        check("000001fffeffffff", "000001ffffffffff", false);
        check("000001ffffffffff", "000001fffeffffff", false);
        check("0000000000000000", "000001ffffffffff", false);
        assert!(!has_capability("", CAP_SYS_RESOURCE));
    }

    #[test]
    fn mount_points() {
        let table = "36 35 98:0 / / rw - ext4 /dev/a rw\n37 36 0:1 / /a\\040b/c rw,relatime shared:1 - tmpfs t rw\n";
        assert_eq!(parse_mounts(table), [PathBuf::from("/"), PathBuf::from("/a b/c")]);
    }
}
