//! The script by which an init system of System V's kind starts the kubelet again with the machine, where there is no systemd:
//! that of the Debian package, with the place of this binary.
//!
//! Invariant: a script that somebody else put there, the package's among them, is neither changed nor removed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::host::HostLayout;

const SCRIPT: &str = include_str!("../../../packaging/debian/kubelet.init");
const PLACE: &str = "/etc/init.d/kubelet";
const PROGRAM_LINE: &str = "KEDGE=/usr/bin/kedge";
/// What tells ours from the package's.
const OWN: &str = "# Written by kedge, and removed by `kedge reset`.";
const REGISTRAR: &str = "update-rc.d";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What starts the kubelet with the machine from now on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StartsAgain {
    /// The script at this place, which was put there now.
    Registered(PathBuf),
    /// A script that was there.
    Already,
    /// Nothing: there is no init system that takes scripts.
    Nothing,
}

/// Puts the script in its place and registers it, where that can be done.
pub(crate) fn ensure_init_script(layout: &HostLayout, program: &Path) -> std::io::Result<StartsAgain> {
    let place = layout.at(PLACE);
    let (Some(directory), Some(registrar)) = (place.parent().filter(|directory| directory.is_dir()), registrar())
    else {
        return Ok(StartsAgain::Nothing);
    };
    let wanted = script(program);
    match fs::read_to_string(&place) {
        Ok(present) if present == wanted || !is_own(&present) => return Ok(StartsAgain::Already),
        _ => {}
    }
    let unfinished = directory.join(".kubelet.kedge");
    fs::write(&unfinished, wanted)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))?;
    fs::rename(&unfinished, &place)?;
    register(&registrar, &["kubelet", "defaults"])?;
    Ok(StartsAgain::Registered(place))
}

/// The script's place, where it is one that [`ensure_init_script`] wrote.
pub fn own_init_script(layout: &HostLayout) -> Option<PathBuf> {
    let place = layout.at(PLACE);
    fs::read_to_string(&place).is_ok_and(|text| is_own(&text)).then_some(place)
}

/// Removes it again, with what leads to it.
pub fn remove_init_script(place: &Path) -> std::io::Result<()> {
    fs::remove_file(place)?;
    match registrar() {
        Some(registrar) => register(&registrar, &["-f", "kubelet", "remove"]),
        None => Ok(()),
    }
}

fn script(program: &Path) -> String {
    let line = format!("{OWN}\nKEDGE={}", quoted(program));
    SCRIPT.replacen(PROGRAM_LINE, &line, 1)
}

/// As one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn is_own(text: &str) -> bool {
    text.lines().any(|line| line == OWN)
}

fn registrar() -> Option<PathBuf> {
    PATH.split(':').map(|directory| Path::new(directory).join(REGISTRAR)).find(|path| path.is_file())
}

fn register(registrar: &Path, words: &[&str]) -> std::io::Result<()> {
    let output = Command::new(registrar).args(words).env("PATH", PATH).stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(std::io::Error::other(format!("{REGISTRAR} {}: {said}", words.join(" "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_names_this_binary_and_is_told_from_others() {
        let text = script(Path::new("/opt/a b/kedge"));
        assert!(text.contains("\nKEDGE='/opt/a b/kedge'\n") && !text.contains(PROGRAM_LINE), "{text}");
        assert!(is_own(&text) && !is_own(SCRIPT));
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }

    #[test]
    fn others_scripts_stay_and_no_place_is_no_script() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        assert_eq!(ensure_init_script(&layout, Path::new("/a")).unwrap(), StartsAgain::Nothing);
        if registrar().is_none() {
            return;
        }
        let place = dir.path().join("etc/init.d/kubelet");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, SCRIPT).unwrap();
        assert_eq!(ensure_init_script(&layout, Path::new("/a")).unwrap(), StartsAgain::Already);
        assert_eq!(fs::read_to_string(&place).unwrap(), SCRIPT);
        assert_eq!(own_init_script(&layout), None);
        fs::write(&place, script(Path::new("/a"))).unwrap();
        assert_eq!(ensure_init_script(&layout, Path::new("/a")).unwrap(), StartsAgain::Already);
        assert_eq!(own_init_script(&layout), Some(place));
    }
}
