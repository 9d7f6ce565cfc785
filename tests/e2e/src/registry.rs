//! A registry of images on a host's loopback or at an address, filled from archives of the tests.
//!
//! It only gives out; what lies below `private/` wants a user. Invariant: every blob that it gives out is one of an
//! archive's.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use hyper::body::Incoming;
use kedge_oci::ImageBuilder;
use serde_json::Value;

use crate::server::{Answer, Server, answer};

/// Whom the private part is for.
pub const REGISTRY_USER: (&str, &str) = ("reader", "secret");
const PORT: u16 = 5000;

/// By path below `/v2/`: the type and the bytes.
type Contents = Arc<Mutex<HashMap<String, (String, Bytes)>>>;

/// A running registry, at `localhost:5000` where nothing else was asked for.
pub struct Registry {
    place: String,
    contents: Contents,
    asked: Arc<Mutex<Vec<String>>>,
    scratch: tempfile::TempDir,
    _server: Server,
}

impl Registry {
    /// An empty one in a network namespace.
    pub fn start(namespace: &str) -> Self {
        Self::at(namespace, [127, 0, 0, 1].into(), "localhost")
    }

    /// An empty one in a network namespace, at an address that others know by a name.
    pub fn at(namespace: &str, address: std::net::IpAddr, host: &str) -> Self {
        let contents = Contents::default();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, log) = (contents.clone(), asked.clone());
        let server = Server::start(namespace, (address, PORT).into(), move |request| {
            log.lock().expect("nobody panics with it").push(request.uri().path().to_owned());
            give(&shared, &request)
        });
        let scratch = tempfile::tempdir().expect("a directory can be made");
        Self { place: format!("{host}:{PORT}"), contents, asked, scratch, _server: server }
    }

    /// Puts an image of these files under a name such as `data:v1`; its whole reference.
    pub fn put(&self, name: &str, files: &[(&str, &str)]) -> String {
        let reference = format!("{}/{name}", self.place);
        let mut image = ImageBuilder::new(&reference).expect("the name is one");
        for (path, text) in files {
            image = image.bytes(path, text.as_bytes().to_vec(), 0o644);
        }
        let archive = self.scratch.path().join("image.tar");
        image.write_to(&archive).expect("the image can be written");
        self.take(&archive, name);
        reference
    }

    /// Puts the image of the tests ([`crate::BUSYBOX`]) under a name; its whole reference.
    pub fn put_busybox(&self, name: &str) -> String {
        let reference = format!("{}/{name}", self.place);
        let archive = self.scratch.path().join("busybox.tar");
        crate::busybox_image(&reference, &archive);
        self.take(&archive, name);
        reference
    }

    /// How often a path that ends so was asked for.
    pub fn asked(&self, end: &str) -> usize {
        self.asked.lock().expect("nobody panics with it").iter().filter(|path| path.ends_with(end)).count()
    }

    fn take(&self, archive: &Path, name: &str) {
        let directory = tempfile::tempdir_in(self.scratch.path()).expect("a directory can be made");
        let unpacked = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(directory.path()).status();
        assert!(unpacked.expect("tar runs").success());
        let (repository, tag) = name.rsplit_once(':').expect("the name has a tag");
        let mut contents = self.contents.lock().expect("nobody panics with it");
        for entry in std::fs::read_dir(directory.path().join("blobs/sha256")).expect("it is an OCI archive") {
            let entry = entry.expect("it can be read");
            let bytes = Bytes::from(std::fs::read(entry.path()).expect("it can be read"));
            let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
            contents.insert(format!("{repository}/blobs/{digest}"), ("application/octet-stream".to_owned(), bytes));
        }
        let index = std::fs::read(directory.path().join("index.json")).expect("it is an OCI archive");
        let index: Value = serde_json::from_slice(&index).expect("it is JSON");
        let text = |field: &str| index["manifests"][0][field].as_str().expect("it is there").to_owned();
        let (_, manifest) = contents[&format!("{repository}/blobs/{}", text("digest"))].clone();
        for reference in [tag.to_owned(), text("digest")] {
            contents.insert(format!("{repository}/manifests/{reference}"), (text("mediaType"), manifest.clone()));
        }
    }
}

fn give(contents: &Contents, request: &http::Request<Incoming>) -> Answer {
    let path = request.uri().path().trim_start_matches("/v2/");
    let (user, password) = REGISTRY_USER;
    let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if path.starts_with("private/") && shown != Some(format!("Basic {token}").as_str()) {
        return answer(401, &[("www-authenticate", "Basic realm=\"tests\"")], "");
    }
    let found = contents.lock().expect("nobody panics with it").get(path).cloned();
    match found {
        Some((kind, bytes)) => {
            let length = bytes.len().to_string();
            let body = if request.method() == http::Method::HEAD { Bytes::new() } else { bytes };
            answer(200, &[("content-type", &kind), ("content-length", &length)], body)
        }
        None => answer(404, &[], "{}"),
    }
}
