//! YAML documents as JSON values, read as upstream reads them: YAML 1.1 but for numbers in base 60, keys as text.
//!
//! Only the first document of several is read. Duplicate keys are noted, and the last one wins. Invariant: neither nesting
//! nor aliases make more of a document than its length allows for.

mod scalars;
mod tree;

use serde_json::{Map, Value};

use crate::decode::{BodyFormat, Untyped};
use crate::problems::DecodeError;
use tree::{Kind, Node, Tree};

/// The parser looks at every open bracket again for each word, so that brackets times bytes is what a document may cost.
const MAX_COST: usize = 1 << 29;

/// Upstream's bounds of what aliases may make up: nearly all of so many values, and a tenth of so many more.
const FREE_VALUES: usize = 400_000;
const MANY_VALUES: usize = 4_000_000;

/// Reads one document. An empty one is `null`.
pub(crate) fn read(bytes: &[u8]) -> Result<Untyped, DecodeError> {
    let failed = |why: String| DecodeError::Syntax(format!("error converting YAML to JSON: yaml: {why}"));
    let brackets = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if brackets > crate::lexer::MAX_DEPTH && brackets.saturating_mul(bytes.len()) > MAX_COST {
        return Err(failed("the document has too many brackets for its length".to_owned()));
    }
    let tree = Tree::parse(bytes).map_err(failed)?;
    let mut reader = Reader::new(&tree);
    let value = match tree.root() {
        Some(root) => reader.value(root, 0).map_err(failed)?,
        None => Value::Null,
    };
    Ok(Untyped { value, duplicates: reader.duplicates, format: BodyFormat::Yaml })
}

/// All duplicates of a document as one error.
pub(crate) fn strict_error(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

struct Reader<'t> {
    tree: &'t Tree,
    /// A line for each key that stands twice.
    duplicates: Vec<String>,
    /// Anchors that are being read.
    open: Vec<usize>,
    values: usize,
    values_of_aliases: usize,
}

impl<'t> Reader<'t> {
    fn new(tree: &'t Tree) -> Self {
        Self { tree, duplicates: Vec::new(), open: Vec::new(), values: 0, values_of_aliases: 0 }
    }

    fn count(&mut self) -> Result<(), String> {
        self.values += 1;
        self.values_of_aliases += usize::from(!self.open.is_empty());
        let allowed = match self.values {
            few if few <= FREE_VALUES => 0.99,
            many if many >= MANY_VALUES => 0.1,
            more => 0.99 - 0.89 * ((more - FREE_VALUES) as f64 / (MANY_VALUES - FREE_VALUES) as f64),
        };
        let share = self.values_of_aliases as f64 / self.values as f64;
        if self.values_of_aliases > 100 && self.values > 1000 && share > allowed {
            return Err("document contains excessive aliasing".to_owned());
        }
        Ok(())
    }

    fn value(&mut self, node: &'t Node, depth: usize) -> Result<Value, String> {
        self.count()?;
        if depth > crate::lexer::MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        match &node.kind {
            Kind::Scalar(scalar) => scalars::resolve(scalar),
            Kind::Alias(..) => self.alias(node, |reader, of| reader.value(of, depth)),
            Kind::List(items) => {
                let items = items.iter().map(|item| self.value(self.tree.node(*item), depth + 1));
                items.collect::<Result<_, _>>().map(Value::Array)
            }
            Kind::Map(entries) => {
                let mut object = Map::new();
                self.fill(&mut object, entries, depth)?;
                Ok(Value::Object(object))
            }
        }
    }

    /// Reads what an alias stands for.
    fn alias<T>(
        &mut self,
        node: &'t Node,
        read: impl FnOnce(&mut Self, &'t Node) -> Result<T, String>,
    ) -> Result<T, String> {
        let Kind::Alias(name, target) = &node.kind else { return read(self, node) };
        if self.open.contains(target) {
            return Err(format!("anchor '{name}' value contains itself"));
        }
        self.open.push(*target);
        let found = read(self, self.tree.node(*target));
        self.open.pop();
        found
    }

    fn fill(
        &mut self,
        object: &mut Map<String, Value>,
        entries: &[(usize, usize)],
        depth: usize,
    ) -> Result<(), String> {
        for (key, value) in entries {
            let (key, value) = (self.tree.node(*key), self.tree.node(*value));
            if matches!(&key.kind, Kind::Scalar(scalar) if scalar.is_merge()) {
                self.merge(object, value, depth)?;
                continue;
            }
            let (key, shown) = match self.value(key, depth + 1)? {
                Value::String(text) => (text.clone(), format!("{text:?}")),
                word @ (Value::Number(_) | Value::Bool(_)) => (word.to_string(), word.to_string()),
                Value::Null => return Err("unsupported map key of type: %!s(<nil>)".to_owned()),
                Value::Array(_) | Value::Object(_) => return Err("invalid map key".to_owned()),
            };
            let line = value.line + 1;
            let value = self.value(value, depth + 1)?;
            if object.insert(key, value).is_some() {
                self.duplicates.push(format!("line {line}: key {shown} already set in map"));
            }
        }
        Ok(())
    }

    /// Puts the entries of other maps into a map, the first map's over those of the next.
    fn merge(&mut self, object: &mut Map<String, Value>, of: &'t Node, depth: usize) -> Result<(), String> {
        let no_map = || "map merge requires map or sequence of maps as the value".to_owned();
        let parts = match &of.kind {
            Kind::List(items) => items.iter().rev().map(|item| self.tree.node(*item)).collect(),
            _ => vec![of],
        };
        for part in parts {
            self.alias(part, |reader, part| match &part.kind {
                Kind::Map(entries) => {
                    reader.count()?;
                    reader.fill(object, entries, depth)
                }
                _ => Err(no_map()),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
