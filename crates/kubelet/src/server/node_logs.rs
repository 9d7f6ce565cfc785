//! `/logs/`: the files of the machine's log directory, and queries for the log of a service (`?query=`).
//!
//! Invariants: nothing outside the directory is read, by whatever links or dots; what is read is streamed or bounded.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt;

use super::streams::query_values;
use super::{Body, Server, answer, text};

const CHUNK: usize = 64 << 10;
const MOST_SERVICES: usize = 4;
const LONGEST_SERVICE: usize = 256;

/// A file or directory by its path, or a query.
pub(super) async fn serve(server: &Server, path: &str, query: &str) -> Response<Body> {
    let config = &server.agent.config;
    if !config.enable_system_log_handler {
        return text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n");
    }
    let has_query = query.split('&').any(|pair| pair.split('=').next() == Some("query"));
    if has_query {
        if !config.enable_system_log_query {
            return text(StatusCode::FORBIDDEN, "Node Log Query not enabled in the kubelet configuration\n");
        }
        return match Query::parse(query) {
            Ok(query) => run(&config.system_log_dir, query).await,
            Err(message) => text(StatusCode::BAD_REQUEST, format!("{message}\n")),
        };
    }
    let Some(found) = inside(&config.system_log_dir, path) else { return not_found() };
    if found.is_dir() {
        return listing(&found);
    }
    file(&found).await.unwrap_or_else(not_found)
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Query {
    File(String),
    Services { names: Vec<String>, with_options: bool },
}

impl Query {
    fn parse(query: &str) -> Result<Self, String> {
        let wanted: Vec<String> = query_values(query, "query").into_iter().filter(|q| !q.trim().is_empty()).collect();
        if wanted.is_empty() {
            return Err("query: Invalid value: [\"\"]: query cannot be empty".to_owned());
        }
        let options = ["sinceTime", "untilTime", "tailLines", "boot", "pattern"];
        let with_options = options.iter().any(|name| query_values(query, name).iter().any(|value| !value.is_empty()));
        let (files, names): (Vec<String>, Vec<String>) =
            wanted.into_iter().partition(|name| name.contains(['/', '\\']));
        match (files.as_slice(), names.as_slice()) {
            ([_, ..], [_, ..]) => Err("query: Invalid value: cannot specify a file and service".to_owned()),
            ([_, _, ..], []) => Err(format!("query: Invalid value: {files:?}: cannot specify more than one file")),
            ([_], []) if with_options => {
                Err(format!("query: Invalid value: {files:?}: cannot specify file with options"))
            }
            ([one], []) => Ok(Self::File(one.clone())),
            (_, names) => check_names(names).map(|()| Self::Services { names: names.to_vec(), with_options }),
        }
    }
}

fn check_names(names: &[String]) -> Result<(), String> {
    if names.len() > MOST_SERVICES {
        return Err(format!("query: Too many: {}: must have at most {MOST_SERVICES} items", names.len()));
    }
    for name in names {
        if name.len() > LONGEST_SERVICE {
            return Err(format!("query: Invalid value: {name:?}: length must be less than 100"));
        }
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@')) {
            return Err(format!("query: Invalid value: {name:?}: input contains unsupported characters"));
        }
    }
    Ok(())
}

async fn run(directory: &Path, query: Query) -> Response<Body> {
    match query {
        Query::File(name) => match inside(directory, &name) {
            Some(path) if path.is_file() => file(&path).await.unwrap_or_else(not_found),
            _ => {
                let message = format!("query: Invalid value: [{name:?}]: no such file or directory\n");
                text(StatusCode::BAD_REQUEST, message)
            }
        },
        Query::Services { names, with_options } => services(directory, &names, with_options).await,
    }
}

/// The logs of services, where upstream looks for those that write files.
// DIVERGES: there is no way to the journal of systemd; services that log there are not found.
async fn services(directory: &Path, names: &[String], with_options: bool) -> Response<Body> {
    if with_options {
        let list = names.join(" ");
        let message =
            format!("\noptions present and query resolved to log files for [{list}]\ntry without specifying options\n");
        return text(StatusCode::OK, message);
    }
    let mut parts: Vec<Part> = Vec::new();
    for name in names {
        let places = [name.clone(), format!("{name}.log"), format!("{name}/{name}.log")];
        let found = places.iter().filter_map(|place| inside(directory, place)).find(|path| path.is_file());
        parts.push(match found {
            Some(path) => Part::File(path),
            None => Part::Text(format!("\nlog not found for {name}\n")),
        });
    }
    streamed(parts)
}

/// A piece of an answer.
enum Part {
    File(PathBuf),
    Text(String),
}

async fn file(path: &Path) -> Option<Response<Body>> {
    tokio::fs::File::open(path).await.ok()?;
    Some(streamed(vec![Part::File(path.to_owned())]))
}

/// Files one after the other, each as far as it went when it was opened.
fn streamed(parts: Vec<Part>) -> Response<Body> {
    let chunks = futures::stream::iter(parts).flat_map(|part| match part {
        Part::Text(text) => futures::stream::once(async move { Ok(Bytes::from(text)) }).boxed(),
        Part::File(path) => futures::stream::once(open(path)).flat_map(file_chunks).boxed(),
    });
    let frames = chunks.map(|chunk: std::io::Result<Bytes>| chunk.map(Frame::data));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(SyncStream::new(frames.boxed()))));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn open(path: PathBuf) -> std::io::Result<tokio::io::Take<tokio::fs::File>> {
    let file = tokio::fs::File::open(path).await?;
    let length = file.metadata().await?.len();
    Ok(file.take(length))
}

fn file_chunks(
    opened: std::io::Result<tokio::io::Take<tokio::fs::File>>,
) -> futures::stream::BoxStream<'static, std::io::Result<Bytes>> {
    match opened {
        Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        Ok(file) => futures::stream::unfold(file, |mut file| async move {
            let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
            match file.read_buf(&mut chunk).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(chunk.freeze()), file)),
                Err(error) => Some((Err(error), file)),
            }
        })
        .boxed(),
    }
}

/// A stream that may be shared because it is only ever polled through `&mut`.
struct SyncStream<S>(parking_lot::Mutex<S>);

impl<S> SyncStream<S> {
    fn new(stream: S) -> Self {
        Self(parking_lot::Mutex::new(stream))
    }
}

impl<S: futures::Stream + Unpin> futures::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.get_mut().0.get_mut().poll_next_unpin(context)
    }
}

/// A path below the directory; `None` where it is not there or leads out of it.
fn inside(directory: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let root = directory.canonicalize().ok()?;
    let found = plain.then(|| root.join(relative).canonicalize().ok()).flatten()?;
    found.starts_with(&root).then_some(found)
}

/// The names in a directory, as Go's file server lists them.
fn listing(directory: &Path) -> Response<Body> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let lines: Vec<String> =
        names.iter().map(|name| format!("<a href=\"{}\">{}</a>\n", link(name), escape(name))).collect();
    let page = format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{}</pre>\n",
        lines.concat()
    );
    answer(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn link(name: &str) -> String {
    let mut link = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'@' | b'+' | b'=' => {
                link.push(char::from(byte));
            }
            other => link.push_str(&format!("%{other:02X}")),
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("log");
        std::fs::create_dir_all(logs.join("sub")).unwrap();
        std::fs::write(logs.join("sub/a.log"), "a").unwrap();
        std::fs::write(directory.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(directory.path().join("secret"), logs.join("link")).unwrap();
        std::os::unix::fs::symlink(logs.join("sub/a.log"), logs.join("fine")).unwrap();
        for (path, expected) in [
            ("sub/a.log", true),
            ("/sub/a.log", true),
            ("fine", true),
            ("../secret", false),
            ("link", false),
            ("no", false),
        ] {
            assert_eq!(inside(&logs, path).is_some(), expected, "{path}");
        }
    }

    #[test]
    fn queries_are_told_apart() {
        let services = |names: &[&str], with_options| {
            Ok(Query::Services { names: names.iter().map(|name| (*name).to_owned()).collect(), with_options })
        };
        for (query, expected) in [
            ("query=kubelet", services(&["kubelet"], false)),
            ("query=a&query=b&tailLines=3", services(&["a", "b"], true)),
            ("query=%2Ffoo.log", Ok(Query::File("/foo.log".to_owned()))),
        ] {
            assert_eq!(Query::parse(query), expected, "{query}");
        }
        for query in
            ["query=", "query=a&query=/b", "query=/a&query=/b", "query=/a&tailLines=1", "query=a;b", "query=$(x)"]
        {
            assert!(Query::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn names_are_links() {
        assert_eq!(link("a b<.log"), "a%20b%3C.log");
        assert_eq!(escape("<a&b>"), "&lt;a&amp;b&gt;");
    }
}
