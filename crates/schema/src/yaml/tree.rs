//! A document as nodes: what the parser says, with aliases bound to what they stand for.

use std::borrow::Cow;
use std::collections::HashMap;

use libyaml_safer::{ErrorKind, Event, EventData, Parser, ScalarStyle};

use super::scalars::Scalar;

/// The nodes of a document; a node names others by their places.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    root: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Counted from zero.
    pub(super) line: u64,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar(Scalar),
    /// By its name and what it stands for.
    Alias(String, usize),
    List(Vec<usize>),
    Map(Vec<(usize, usize)>),
}

impl Tree {
    /// Reads the first document; the error is upstream's text.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let ended = with_line_end(bytes);
        let mut input = &*ended;
        let mut parser = Parser::new();
        parser.set_input_string(&mut input);
        let own_end = (ended.len() > bytes.len()).then_some(bytes);
        let mut builder = Builder { parser, own_end, tree: Self::default(), anchors: HashMap::new() };
        // The beginning of the stream, and that of the document, if there is one.
        builder.next()?;
        if let EventData::DocumentStart { .. } = builder.next()?.data {
            let event = builder.next()?;
            builder.tree.root = Some(builder.document(event)?);
        }
        Ok(builder.tree)
    }

    pub(super) fn root(&self) -> Option<&Node> {
        self.root.map(|root| self.node(root))
    }

    pub(super) fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }
}

/// The parser has no answer to a block of text that ends with the document instead of a line.
fn with_line_end(bytes: &[u8]) -> Cow<'_, [u8]> {
    match bytes.last() {
        Some(b'\n') | None => Cow::Borrowed(bytes),
        Some(_) => Cow::Owned([bytes, b"\n"].concat()),
    }
}

/// The text of the last block of a document that was given the end of its last line, without that.
fn without_line_end(mut text: String, document: &[u8]) -> String {
    let last = document.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let has_content = last.iter().any(|byte| *byte != b' ') || text.ends_with(" \n");
    if text.ends_with("\n\n") || (has_content && text.ends_with('\n')) {
        text.pop();
    }
    text
}

struct Builder<'r, 'b> {
    parser: Parser<&'r mut &'b [u8]>,
    /// The document as it was sent, where it was given an end of its last line.
    own_end: Option<&'b [u8]>,
    tree: Tree,
    anchors: HashMap<String, usize>,
}

impl Builder<'_, '_> {
    fn next(&mut self) -> Result<Event, String> {
        self.parser.parse().map_err(|error| {
            // Upstream counts lines so: from zero, but for those of words.
            let scanned = u64::from(error.kind() == ErrorKind::Scanner);
            let of_problem = error.problem_mark().map(|mark| mark.line).filter(|line| *line != 0);
            let of_context = error.context_mark().map(|mark| mark.line).filter(|line| *line != 0);
            match of_problem.map(|line| line + scanned).or(of_context) {
                Some(line) => format!("line {line}: {}", error.problem()),
                None => error.problem().to_owned(),
            }
        })
    }

    fn add(&mut self, kind: Kind, line: u64, anchor: Option<String>) -> usize {
        self.tree.nodes.push(Node { kind, line });
        let index = self.tree.nodes.len() - 1;
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, index);
        }
        index
    }

    /// Reads what an event begins to its end, without recursion: nesting is bounded where values are made.
    fn document(&mut self, first: Event) -> Result<usize, String> {
        // Open lists and maps, with the key that waits for its value.
        let mut open: Vec<(usize, Option<usize>)> = Vec::new();
        let mut event = first;
        loop {
            let line = event.start_mark.line;
            let done = match event.data {
                EventData::Scalar { anchor, tag, value, plain_implicit, style, .. } => {
                    let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                    let cut = self.own_end.filter(|sent| is_block && event.end_mark.index > sent.len() as u64);
                    let value = match cut {
                        Some(sent) => without_line_end(value, sent),
                        None => value,
                    };
                    let scalar = Scalar { tag: tag.unwrap_or_default(), text: value, is_plain: plain_implicit };
                    self.add(Kind::Scalar(scalar), line, anchor)
                }
                EventData::Alias { anchor } => {
                    let target = self.anchors.get(&anchor).copied();
                    let target = target.ok_or_else(|| format!("unknown anchor '{anchor}' referenced"))?;
                    self.add(Kind::Alias(anchor, target), line, None)
                }
                EventData::SequenceStart { anchor, .. } => {
                    open.push((self.add(Kind::List(Vec::new()), line, anchor), None));
                    event = self.next()?;
                    continue;
                }
                EventData::MappingStart { anchor, .. } => {
                    open.push((self.add(Kind::Map(Vec::new()), line, anchor), None));
                    event = self.next()?;
                    continue;
                }
                EventData::SequenceEnd | EventData::MappingEnd => match open.pop() {
                    Some((index, None)) => index,
                    _ => return Err("unknown problem parsing YAML content".to_owned()),
                },
                _ => return Err("unknown problem parsing YAML content".to_owned()),
            };
            let Some((owner, key)) = open.last_mut() else { return Ok(done) };
            match (&mut self.tree.nodes[*owner].kind, key.take()) {
                (Kind::List(items), _) => items.push(done),
                (Kind::Map(_), None) => *key = Some(done),
                (Kind::Map(entries), Some(key)) => entries.push((key, done)),
                _ => return Err("unknown problem parsing YAML content".to_owned()),
            }
            event = self.next()?;
        }
    }
}
