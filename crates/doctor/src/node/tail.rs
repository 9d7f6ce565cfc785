//! The end of a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The last whole lines of a file within so many bytes.
pub(super) fn tail(path: &Path, most: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let from = size.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // The first line of a part is a part of a line.
    Ok(match text.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn only_whole_lines_are_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "first\nsecond\nthird\n").expect("it is written");
        assert_eq!(tail(file.path(), 100).expect("it is read"), "first\nsecond\nthird\n");
        assert_eq!(tail(file.path(), 9).expect("it is read"), "third\n");
    }
}
