//! Files that appear whole or not at all, and those that stay the same file because others have them mounted.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::PkiError;

/// Writes a file that only its owner can read, through a temporary file beside it.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write(path, content, 0o600)
}

/// Writes a file that everybody can read, through a temporary file beside it.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write(path, content, 0o644)
}

pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let wrap = |action| move |source| PkiError::File { action, path: path.to_owned(), source };
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(wrap("create the directory of"))?;
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(wrap("write"))?;
    file.write_all(content).map_err(wrap("write"))?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(wrap("set the mode of"))?;
    file.as_file().sync_all().map_err(wrap("write"))?;
    file.persist(path).map_err(|error| wrap("write")(error.error))?;
    Ok(())
}

/// Writes the file that is there, which stays the same file: whoever has it mounted sees what is in it now. What it will
/// say is beside it, under `<name>.new`, until it is done; readers take what they cannot read for what is being written.
pub(crate) fn rewrite(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let wrap = |source| PkiError::File { action: "write", path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    write_private(beside, content)?;
    let mut file = std::fs::File::options().write(true).open(path).map_err(wrap)?;
    file.write_all(content).map_err(wrap)?;
    file.set_len(content.len() as u64).map_err(wrap)?;
    file.sync_all().map_err(wrap)?;
    std::fs::remove_file(beside).map_err(wrap)
}

/// The text of a file, or `None` where there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { action: "read", path: path.to_owned(), source }),
    }
}
