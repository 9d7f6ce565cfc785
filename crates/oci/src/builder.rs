//! The image builder: collects what goes into an image and writes it as an archive.
//!
//! The archive is an OCI layout and a `docker save` archive at once. Invariant: the target file is replaced whole or not
//! at all, and memory use does not depend on the size of the files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use tar::{EntryType, Header};

use crate::layer::{Entry, Tree};
use crate::manifest::{self, Blob, RunConfig};
use crate::reference::{ReferenceError, normalize_reference};

const TAR_BLOCK: u64 = 512;
const BUFFER_BYTES: usize = 256 * 1024;

/// An image that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file that goes into the image could not be read.
    #[error("could not put {} into the image", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("could not write the image archive {}", path.display())]
    Output {
        /// The archive.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What was written. Digests are `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDigest {
    /// The manifest, which is what `name@sha256:...` means.
    pub manifest: String,
    /// The configuration, which is the image id in the CRI and in Docker.
    pub config: String,
    /// The one layer.
    pub layer: String,
    /// The full names of the image and of its variants.
    pub names: Vec<String>,
}

/// An image in the making.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    names: Vec<String>,
    tree: Tree,
    run: RunConfig,
    variants: Vec<(String, RunConfig)>,
}

impl ImageBuilder {
    /// An empty image of this name, for this machine's architecture.
    pub fn new(reference: &str) -> Result<Self, ReferenceError> {
        let run = RunConfig { architecture: go_architecture().to_owned(), ..RunConfig::default() };
        Ok(Self { names: vec![normalize_reference(reference)?], tree: Tree::default(), run, variants: Vec::new() })
    }

    /// One more name.
    pub fn tag(mut self, reference: &str) -> Result<Self, ReferenceError> {
        let name = normalize_reference(reference)?;
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        Ok(self)
    }

    /// Another image in the same archive: the same files, which a runtime keeps once, with another program and user.
    pub fn variant(mut self, reference: &str, entrypoint: &[&str], user: &str) -> Result<Self, ReferenceError> {
        let entrypoint = entrypoint.iter().map(|word| (*word).to_owned()).collect();
        let run = RunConfig { entrypoint, user: user.to_owned(), ..self.run.clone() };
        self.variants.push((normalize_reference(reference)?, run));
        Ok(self)
    }

    /// A file with the contents of `source`, read when the image is written.
    pub fn file(mut self, path: impl AsRef<Path>, source: impl Into<PathBuf>, mode: u32) -> Self {
        self.tree.insert(path.as_ref(), Entry::File { source: source.into(), mode });
        self
    }

    /// A file with these contents.
    pub fn bytes(mut self, path: impl AsRef<Path>, contents: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.tree.insert(path.as_ref(), Entry::Bytes { contents: contents.into(), mode });
        self
    }

    /// A directory. Those above any entry are made by themselves, with mode 755.
    pub fn dir(mut self, path: impl AsRef<Path>, mode: u32) -> Self {
        self.tree.insert(path.as_ref(), Entry::Directory { mode });
        self
    }

    /// A symbolic link.
    pub fn symlink(mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) -> Self {
        self.tree.insert(path.as_ref(), Entry::Symlink { target: target.into() });
        self
    }

    /// The program and its fixed arguments.
    pub fn entrypoint<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.run.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// The arguments that a pod may replace.
    pub fn cmd<T: Into<String>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.run.cmd = words.into_iter().map(Into::into).collect();
        self
    }

    /// One environment variable more.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.run.env.push(format!("{name}={value}"));
        self
    }

    /// The user, as `uid`, `uid:gid` or a name of the image's /etc/passwd.
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.run.user);
        self
    }

    /// The working directory.
    pub fn working_dir(mut self, dir: &str) -> Self {
        dir.clone_into(&mut self.run.working_dir);
        self
    }

    /// A port, such as `8080/tcp`; information only.
    pub fn expose(mut self, port: &str) -> Self {
        self.run.exposed_ports.push(port.to_owned());
        self
    }

    /// A label of the image.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.run.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Another architecture than this machine's, in Go's names: `amd64`, `arm64`.
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.run.architecture);
        self
    }

    /// Writes the archive to `path`, by way of a file beside it.
    pub fn write_to(&self, path: &Path) -> Result<ImageDigest, BuildError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let written = self.write_archive(&unfinished);
        let renamed = written.and_then(|digest| {
            fs::rename(&unfinished, path).map_err(|source| BuildError::Output { path: path.to_owned(), source })?;
            Ok(digest)
        });
        if renamed.is_err() {
            // The first error is the one to tell; a leftover is replaced by the next try.
            let _ = fs::remove_file(&unfinished);
        }
        renamed
    }

    fn write_archive(&self, path: &Path) -> Result<ImageDigest, BuildError> {
        let output = |source| BuildError::Output { path: path.to_owned(), source };
        let file = File::create(path).map_err(output)?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let layer = self.write_layer(&mut out).map_err(|(input, source)| match input {
            Some(input) => BuildError::Input { path: input, source },
            None => output(source),
        })?;
        let digest = self.write_documents(&mut out, &layer).map_err(output)?;
        out.flush().map_err(output)?;
        Ok(digest)
    }

    /// Streams the layer to its place and writes its header afterwards: the header has its name, and that is the digest.
    fn write_layer(&self, out: &mut BufWriter<File>) -> Result<Blob, (Option<PathBuf>, io::Error)> {
        let plain = |error| (None, error);
        out.write_all(&[0; TAR_BLOCK as usize]).map_err(plain)?;
        let mut counted = Digesting { out, context: Context::new(&SHA256), size: 0, failed: false };
        let written = self.tree.write(&mut counted);
        let (blob, output_failed) = counted.finish();
        written.map_err(|(input, error)| (Some(input).filter(|_| !output_failed), error))?;
        let padding = blob.size.next_multiple_of(TAR_BLOCK) - blob.size;
        out.write_all(&[0; TAR_BLOCK as usize][..padding as usize]).map_err(plain)?;
        let end = out.stream_position().map_err(plain)?;
        out.seek(SeekFrom::Start(0)).map_err(plain)?;
        let mut header = header(EntryType::Regular, blob.size);
        header.set_path(blob.path()).map_err(plain)?;
        header.set_cksum();
        out.write_all(header.as_bytes()).map_err(plain)?;
        out.seek(SeekFrom::Start(end)).map_err(plain)?;
        Ok(blob)
    }

    fn write_documents(&self, out: &mut BufWriter<File>, layer: &Blob) -> io::Result<ImageDigest> {
        let mut images = vec![Described::new(&self.run, self.names.clone(), layer)];
        images.extend(self.variants.iter().map(|(name, run)| Described::new(run, vec![name.clone()], layer)));
        let mut documents = Vec::new();
        let (mut index, mut docker) = (Vec::new(), Vec::new());
        for image in &images {
            index.extend(manifest::index_entries(&image.manifest, &image.names, &self.run.architecture));
            docker.push(manifest::docker_entry(&image.config, layer, &image.names));
            documents.push((image.config.path(), image.config_bytes.clone()));
            documents.push((image.manifest.path(), image.manifest_bytes.clone()));
        }
        documents.push(("index.json".to_owned(), manifest::index(&index)));
        documents.push(("manifest.json".to_owned(), manifest::docker_manifest(&docker)));
        documents.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        let mut archive = tar::Builder::new(out);
        for (path, bytes) in documents {
            archive.append_data(&mut header(EntryType::Regular, bytes.len() as u64), path, bytes.as_slice())?;
        }
        archive.finish()?;
        let own = images.swap_remove(0);
        Ok(ImageDigest {
            manifest: own.manifest.digest,
            config: own.config.digest,
            layer: layer.digest.clone(),
            names: self.names.iter().chain(self.variants.iter().map(|(name, _)| name)).cloned().collect(),
        })
    }
}

/// The documents of one image.
struct Described {
    names: Vec<String>,
    config: Blob,
    config_bytes: Vec<u8>,
    manifest: Blob,
    manifest_bytes: Vec<u8>,
}

impl Described {
    fn new(run: &RunConfig, names: Vec<String>, layer: &Blob) -> Self {
        let config_bytes = manifest::config(run, layer);
        let config = blob(&config_bytes);
        let manifest_bytes = manifest::manifest(&config, layer);
        let manifest = blob(&manifest_bytes);
        Self { names, config, config_bytes, manifest, manifest_bytes }
    }
}

/// Passes bytes on and takes their digest.
struct Digesting<'a, W> {
    out: &'a mut W,
    context: Context,
    size: u64,
    failed: bool,
}

impl<W: Write> Digesting<'_, W> {
    /// The blob, and whether it was the output that failed.
    fn finish(self) -> (Blob, bool) {
        (Blob { digest: format!("sha256:{}", hex(self.context.finish().as_ref())), size: self.size }, self.failed)
    }
}

impl<W: Write> Write for Digesting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.write(bytes) {
            Ok(written) => {
                self.context.update(&bytes[..written]);
                self.size += written as u64;
                Ok(written)
            }
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn blob(bytes: &[u8]) -> Blob {
    let digest = ring::digest::digest(&SHA256, bytes);
    Blob { digest: format!("sha256:{}", hex(digest.as_ref())), size: bytes.len() as u64 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Go's name of this machine's architecture.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
