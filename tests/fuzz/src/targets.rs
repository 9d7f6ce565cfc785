//! The targets: one for each parser that strangers reach.
//!
//! Invariant: a target checks what must hold of every input and panics where it does not.

mod objects;
mod patches;
mod requests;
mod selectors;
mod streams;

use std::hash::{DefaultHasher, Hash, Hasher};

/// Something that takes bytes from strangers.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called, also in the corpus.
    pub name: &'static str,
    /// Words of its format.
    pub(crate) words: &'static [&'static str],
    /// Inputs that are made and not saved.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Takes an input; says in a number what came of it.
    pub(crate) run: fn(&[u8]) -> u64,
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "null",
    "true",
    "-1",
    "1e999",
    "0.1",
    "9223372036854775808",
    "\\u0000",
    "\\ud800",
    "{\"a\":",
    "[[[[",
    "\"metadata\":",
    "\"name\":\"a\"",
    "\"spec\":",
    "\"items\":[",
    "\"$patch\":\"delete\"",
    "\"apiVersion\":\"v1\"",
    "\"kind\":\"Pod\"",
    "\"labels\":{}",
    "\"containers\":[{\"name\":\"a\"}]",
    "\"managedFields\":",
];

const PATCH: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "\"op\":\"copy\"",
    "\"op\":\"move\"",
    "\"op\":\"add\"",
    "\"op\":\"remove\"",
    "\"from\":\"/a\"",
    "\"path\":\"/a/b\"",
    "\"path\":\"/-\"",
    "\"value\":{}",
    "~0",
    "~1",
    "/",
    "-1",
    "\"$patch\":\"replace\"",
    "\"$setElementOrder/containers\":",
    "\"$deleteFromPrimitiveList/finalizers\":",
    "\"$retainKeys\":",
    "\"f:spec\":{}",
    "\"k:{\\\"name\\\":\\\"a\\\"}\":{}",
    "\"v:1\":{}",
    "\"i:0\":{}",
    "\".\":{}",
    "\"fieldsV1\":",
    "\"containers\":[{\"name\":\"a\"}]",
];

const YAML: &[&str] = &[
    "a: ",
    "- ",
    "\n",
    "  ",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "| \n",
    "> \n",
    "!!str ",
    "!!binary ",
    "{",
    "}",
    "[",
    "]",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "~",
    "yes",
    "0o17",
    "0x1F",
    "1_000",
    ".inf",
    "'",
    "\"",
    "#",
    ": ",
    "\t",
    "&b [*a,*a,*a]",
];

const SELECTOR: &[&str] = &[
    "=",
    "==",
    "!=",
    "!",
    ",",
    " in (",
    " notin (",
    ")",
    "(",
    ">",
    "<",
    "a",
    "b/c",
    "\\,",
    "\\=",
    " ",
    "metadata.name=",
];

const REQUEST: &[&str] = &[
    "GET ",
    "POST ",
    "PUT ",
    "PATCH ",
    "DELETE ",
    "/api/v1/",
    "/apis/",
    "namespaces/default/",
    "configmaps",
    "pods/a",
    "/status",
    "/scale",
    "/log",
    "?watch=true",
    "&limit=1",
    "&continue=",
    "&labelSelector=",
    "&fieldSelector=",
    "%00",
    "%2F",
    "&resourceVersion=0",
    "&resourceVersionMatch=Exact",
    "&dryRun=All",
    "&fieldManager=a&force=true",
    "..",
    "//",
    "\n\n",
    "Accept: application/vnd.kubernetes.protobuf\n",
    "Content-Type: application/apply-patch+yaml\n",
    "{}",
    "[]",
    "Accept: application/json;as=Table;g=meta.k8s.io;v=v1\n",
    "Content-Type: application/json-patch+json\n",
];

const BYTES: &[&str] =
    &["\0", "\x01", "\x7f", "\0\0\0\0", "k8s\0", "\x0a", "\x12", "\u{80}\u{80}", "\x0a\x7f", "\x1a\x00"];

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "json", words: JSON, seeds: Vec::new, run: objects::json },
    Target { name: "yaml", words: YAML, seeds: Vec::new, run: objects::yaml },
    Target { name: "protobuf", words: BYTES, seeds: objects::messages, run: objects::protobuf },
    Target { name: "label-selector", words: SELECTOR, seeds: Vec::new, run: selectors::labels },
    Target { name: "field-selector", words: SELECTOR, seeds: Vec::new, run: selectors::fields },
    Target { name: "json-patch", words: PATCH, seeds: Vec::new, run: patches::json },
    Target { name: "merge-patch", words: PATCH, seeds: Vec::new, run: patches::merge },
    Target { name: "strategic-patch", words: PATCH, seeds: Vec::new, run: patches::strategic },
    Target { name: "apply", words: PATCH, seeds: Vec::new, run: patches::apply },
    Target { name: "request", words: REQUEST, seeds: Vec::new, run: requests::request },
    Target { name: "websocket", words: BYTES, seeds: streams::messages, run: streams::websocket },
    Target { name: "spdy", words: BYTES, seeds: streams::conversations, run: streams::spdy },
];

/// A number for an outcome: texts count without their digits and quoted parts, which are often those of the input.
fn outcome(kind: u64, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    let mut quoted = false;
    for c in text.chars().take(400) {
        quoted ^= c == '"';
        if !quoted && !c.is_ascii_digit() {
            c.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// A few sizes, so that more of something is something new.
fn size(length: usize) -> u64 {
    u64::from(usize::BITS - length.leading_zeros())
}
