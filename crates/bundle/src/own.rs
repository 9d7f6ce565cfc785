//! Kedge's own bundle: an archive with a readable word on what it is, and the evidence, an item a line.
//!
//! Invariant: what is written has gone through `redact`, and is no larger than its bound: lines of logs are left out first,
//! the oldest first, and the bundle says so.

use std::io::{self, BufRead, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use kedge_diagnosis::{Evidence, Fact, Item, Unseen};
use serde::{Deserialize, Serialize};

use crate::redact::redact;

/// The file that says what the bundle is.
const HEAD: &str = "kedge-bundle/bundle.json";
/// The file with the evidence.
const ITEMS: &str = "kedge-bundle/evidence.jsonl";
const VERSION: u32 = 1;

/// Why a bundle could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file.
    #[error("the bundle cannot be written")]
    Write(#[source] io::Error),
    /// An item has no form in JSON.
    #[error("an item of evidence has no form in JSON")]
    Form(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head {
    version: u32,
    pub(crate) gathered: Timestamp,
    pub(crate) unseen: Vec<Unseen>,
}

/// Writes evidence as a bundle of at most about `most_bytes` before it is packed. Secrets are taken out.
pub fn write_bundle(evidence: Evidence, most_bytes: usize, to: impl Write) -> Result<(), BundleError> {
    let mut evidence = redact(evidence);
    let lines =
        evidence.items.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>().map_err(BundleError::Form)?;
    let left_out = plan_left_out(&evidence.items, &lines, most_bytes);
    if !left_out.is_empty() {
        let why = format!("{} items were left out of the bundle, whose size is bounded", left_out.len());
        evidence.unseen.push(Unseen { what: "older lines of logs".to_owned(), why });
    }
    let head = Head { version: VERSION, gathered: evidence.gathered, unseen: evidence.unseen };
    let head = serde_json::to_string_pretty(&head).map_err(BundleError::Form)?;
    let mut body = String::new();
    for (index, line) in lines.iter().enumerate() {
        if left_out.binary_search(&index).is_err() {
            body.push_str(line);
            body.push('\n');
        }
    }
    let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::fast()));
    for (name, content) in [(HEAD, &head), (ITEMS, &body)] {
        append(&mut archive, name, content.as_bytes(), evidence.gathered).map_err(BundleError::Write)?;
    }
    let packed = archive.into_inner().and_then(GzEncoder::finish).map_err(BundleError::Write)?;
    { packed }.flush().map_err(BundleError::Write)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, content: &[u8], time: Timestamp) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(time.as_second()).unwrap_or_default());
    archive.append_data(&mut header, name, content)
}

/// The items that are left out, by their index in order: lines of logs, the oldest first, then whatever comes last.
fn plan_left_out(items: &[Item], lines: &[String], most_bytes: usize) -> Vec<usize> {
    let mut too_much = lines.iter().map(String::len).sum::<usize>().saturating_sub(most_bytes);
    let mut order: Vec<usize> = (0..items.len()).rev().collect();
    order.sort_by_key(|&index| (!matches!(items[index].fact, Fact::Log(_)), items[index].time));
    let mut left_out = Vec::new();
    for index in order {
        if too_much == 0 {
            break;
        }
        too_much = too_much.saturating_sub(lines[index].len());
        left_out.push(index);
    }
    left_out.sort_unstable();
    left_out
}

/// What a file of an own bundle is.
pub(crate) enum Part {
    /// It says what the bundle is.
    Head(Head),
    /// Its evidence has been read.
    Evidence,
}

/// Reads a file of an own bundle, and gives each item of evidence to `keep` until that says no; `None` where it is no such
/// file.
pub(crate) fn read_part(
    name: &str,
    content: &mut dyn BufRead,
    keep: &mut dyn FnMut(Item) -> bool,
) -> Option<Result<Part, String>> {
    if name.ends_with(HEAD) {
        let head: Result<Head, _> = serde_json::from_reader(content);
        return Some(head.map(Part::Head).map_err(|error| error.to_string()));
    }
    if !name.ends_with(ITEMS) {
        return None;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        match content.read_until(b'\n', &mut line) {
            Ok(0) => return Some(Ok(Part::Evidence)),
            Err(error) => return Some(Err(error.to_string())),
            Ok(_) => {}
        }
        // A line of a newer version, or the last of a bundle that was cut off: the others count.
        if let Ok(item) = serde_json::from_slice(&line)
            && !keep(item)
        {
            return Some(Ok(Part::Evidence));
        }
    }
}
