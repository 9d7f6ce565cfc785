//! Container images made out of files on this machine, without a registry, a Dockerfile or a daemon.
//!
//! It writes archives and imports nothing. Invariant: the same inputs give the same bytes, so that an image's digest
//! tells whether it changed.

mod archive;
mod builder;
mod elf;
mod layer;
mod manifest;
mod reference;

pub use archive::{ArchiveError, archive_names};
pub use builder::{BuildError, ImageBuilder, ImageDigest};
pub use elf::is_static_elf;
pub use reference::{ReferenceError, normalize_reference};
