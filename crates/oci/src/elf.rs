//! Whether a program can run alone in an image.
//!
//! Only the program headers are read. A program without an interpreter needs no dynamic linker and no libraries, be it
//! position-independent or not.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Program header type of the path of the dynamic linker.
const PT_INTERP: u32 = 3;
/// The most program headers that are looked at; linkers write about a dozen.
const MAX_HEADERS: u16 = 512;

/// Whether the ELF program asks for no dynamic linker.
///
/// # Errors
/// `InvalidData` where the file is no ELF program, or what opening and reading it gave.
pub fn is_static_elf(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut header = [0_u8; 64];
    file.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid("it is too short for an ELF program"),
        _ => error,
    })?;
    let layout = Layout::of(&header)?;
    if layout.count > MAX_HEADERS || layout.size < 4 {
        return Err(invalid("its program headers make no sense"));
    }
    for index in 0..u64::from(layout.count) {
        file.seek(SeekFrom::Start(layout.offset + index * u64::from(layout.size)))?;
        let mut kind = [0_u8; 4];
        file.read_exact(&mut kind)?;
        if layout.word(kind) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the program headers are.
struct Layout {
    little_endian: bool,
    offset: u64,
    size: u16,
    count: u16,
}

impl Layout {
    fn of(header: &[u8; 64]) -> io::Result<Self> {
        if header[..4] != *b"\x7fELF" {
            return Err(invalid("it is not an ELF program"));
        }
        let mut layout = Self { little_endian: header[5] == 1, offset: 0, size: 0, count: 0 };
        // e_type: 2 is an executable, 3 a shared object, which position-independent programs are as well.
        if !matches!(layout.half(header, 16), 2 | 3) {
            return Err(invalid("it is an ELF file, but not a program"));
        }
        match header[4] {
            1 => {
                layout.offset = u64::from(layout.word([header[28], header[29], header[30], header[31]]));
                layout.size = layout.half(header, 42);
                layout.count = layout.half(header, 44);
            }
            2 => {
                let bytes: [u8; 8] = header[32..40].try_into().expect("eight bytes");
                layout.offset =
                    if layout.little_endian { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) };
                layout.size = layout.half(header, 54);
                layout.count = layout.half(header, 56);
            }
            _ => return Err(invalid("it is an ELF file of an unknown class")),
        }
        Ok(layout)
    }

    fn half(&self, header: &[u8; 64], at: usize) -> u16 {
        let bytes = [header[at], header[at + 1]];
        if self.little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    }

    fn word(&self, bytes: [u8; 4]) -> u32 {
        if self.little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit little-endian program with these program header types.
    fn program(kind: u16, headers: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0_u8; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(headers.len()).expect("few").to_le_bytes());
        for header in headers {
            bytes.extend_from_slice(&header.to_le_bytes());
            bytes.extend_from_slice(&[0; 52]);
        }
        bytes
    }

    #[test]
    fn programs() {
        let dir = tempfile::tempdir().expect("temp dir");
        let check = |name: &str, bytes: &[u8], expected: Option<bool>| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("write");
            assert_eq!(is_static_elf(&path).ok(), expected, "{name}");
        };
        check("static", &program(2, &[1, 1, 4]), Some(true));
        check("static-pie", &program(3, &[1, 2, 4]), Some(true));
        check("dynamic", &program(3, &[6, 3, 1]), Some(false));
        check("object", &program(1, &[]), None);
        check("script", &[b'#'; 100], None);
        check("short", b"\x7fELF", None);
        check("truncated", &program(2, &[1, 1])[..100], None);
    }
}
