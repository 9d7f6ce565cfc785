//! Volumes on disk: a directory, or an image file behind a loop device.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a volume's files are.
pub(crate) fn directory(state: &Path, id: &str) -> PathBuf {
    state.join("volumes").join(id)
}

fn image(state: &Path, id: &str) -> PathBuf {
    state.join("images").join(format!("{id}.img"))
}

/// Makes the image file of a block volume.
pub(crate) fn make_image(state: &Path, id: &str, bytes: u64) -> io::Result<()> {
    let path = image(state, id);
    std::fs::create_dir_all(state.join("images"))?;
    std::fs::File::options().create(true).append(true).open(path)?.set_len(bytes)
}

/// Whether there is such a volume.
pub(crate) fn exists(state: &Path, id: &str) -> bool {
    directory(state, id).exists() || image(state, id).exists()
}

/// The loop device of a block volume; one is made where there is none.
pub(crate) fn loop_device(state: &Path, id: &str) -> Result<PathBuf, String> {
    let image = image(state, id);
    if let Some(device) = known_loop_device(&image)? {
        return Ok(device);
    }
    let made = losetup(&["--find", "--show", &image.to_string_lossy()])?;
    Ok(PathBuf::from(made.trim()))
}

/// Lets the loop device go.
pub(crate) fn release_loop_device(state: &Path, id: &str) -> Result<(), String> {
    match known_loop_device(&image(state, id))? {
        Some(device) => losetup(&["--detach", &device.to_string_lossy()]).map(|_| ()),
        None => Ok(()),
    }
}

fn known_loop_device(image: &Path) -> Result<Option<PathBuf>, String> {
    let listed = losetup(&["--associated", &image.to_string_lossy(), "--output", "NAME", "--noheadings"])?;
    Ok(listed.split_whitespace().next().map(PathBuf::from))
}

fn losetup(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("losetup").args(arguments).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Whether something is mounted at a path.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|mounted| Path::new(mounted) == path)
}
