//! Sets of fields, as `metadata.managedFields[].fieldsV1` holds them.
//!
//! A set is a tree: each node says whether the path that leads to it is a member, and which paths below it are. The
//! invariant: nodes are sorted, and none is empty. What is a member says nothing about its children.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::path_element::PathElement;
use crate::schema::{Schema, Shape};

/// A set of field paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet<'a> {
    nodes: Vec<(PathElement<'a>, Node<'a>)>,
}

/// One path of a set and what lies below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) member: bool,
    pub(super) children: FieldSet<'a>,
}

/// A `fieldsV1` document that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document is no field set")]
pub struct ParseFieldSetError;

impl Node<'_> {
    pub(super) fn member() -> Self {
        Self { member: true, children: FieldSet::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl<'a> FieldSet<'a> {
    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Reads a `fieldsV1` document.
    pub fn decode(fields: &'a Value) -> Result<Self, ParseFieldSetError> {
        let Value::Object(fields) = fields else { return Err(ParseFieldSetError) };
        let mut nodes = Vec::with_capacity(fields.len());
        for (key, below) in fields {
            if key == "." {
                continue;
            }
            let Some(element) = PathElement::decode(key).map_err(|()| ParseFieldSetError)? else { continue };
            let children = FieldSet::decode(below)?;
            let member = children.is_empty() || below.get(".").is_some();
            nodes.push((element, Node { member, children }));
        }
        if !nodes.is_sorted_by(|(a, _), (b, _)| a < b) {
            nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
            nodes.dedup_by(|(a, _), (b, _)| a == b);
        }
        Ok(Self { nodes })
    }

    /// The `fieldsV1` document.
    pub fn encode(&self) -> Value {
        self.encode_node(false)
    }

    fn encode_node(&self, with_self: bool) -> Value {
        let mut fields = Map::new();
        if with_self && !self.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, node) in &self.nodes {
            fields.insert(element.encode(), node.children.encode_node(node.member));
        }
        Value::Object(fields)
    }

    /// Adds what is not empty. Elements may come in any order.
    pub(super) fn push(&mut self, element: PathElement<'a>, node: Node<'a>) {
        if node.is_empty() {
            return;
        }
        match self.nodes.last() {
            Some((last, _)) if *last >= element => match self.find(&element) {
                Ok(index) => {
                    let slot = &mut self.nodes[index].1;
                    slot.member |= node.member;
                    slot.children = std::mem::take(&mut slot.children).union(node.children);
                }
                Err(index) => self.nodes.insert(index, (element, node)),
            },
            _ => self.nodes.push((element, node)),
        }
    }

    fn find(&self, element: &PathElement<'_>) -> Result<usize, usize> {
        self.nodes.binary_search_by(|(candidate, _)| candidate.cmp(element))
    }

    pub(super) fn get(&self, element: &PathElement<'_>) -> Option<&Node<'a>> {
        self.find(element).ok().map(|index| &self.nodes[index].1)
    }

    /// A set of one path of field names.
    pub(super) fn of_path(path: &[&'a str]) -> Self {
        let mut set = FieldSet::default();
        let Some((first, rest)) = path.split_first() else { return set };
        let node = if rest.is_empty() { Node::member() } else { Node { member: false, children: Self::of_path(rest) } };
        set.nodes.push((PathElement::Field((*first).into()), node));
        set
    }

    /// All members of both.
    pub(super) fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let mut left = self.nodes.into_iter().peekable();
        let mut right = other.nodes.into_iter().peekable();
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Self { nodes },
            };
            match order {
                Ordering::Less => nodes.extend(left.next()),
                Ordering::Greater => nodes.extend(right.next()),
                Ordering::Equal => {
                    if let (Some((element, a)), Some((_, b))) = (left.next(), right.next()) {
                        let children = a.children.union(b.children);
                        nodes.push((element, Node { member: a.member || b.member, children }));
                    }
                }
            }
        }
    }

    /// Members of both.
    pub(super) fn intersection(&self, other: &FieldSet<'_>) -> Self {
        let mut common = FieldSet::default();
        for (element, node) in &self.nodes {
            if let Some(theirs) = other.get(element) {
                let children = node.children.intersection(&theirs.children);
                common.push(element.clone(), Node { member: node.member && theirs.member, children });
            }
        }
        common
    }

    /// Members that are not members of `other`; their children are looked at one by one.
    pub(super) fn difference(mut self, other: &FieldSet<'_>) -> Self {
        if !other.is_empty() {
            self.nodes.retain_mut(|(element, node)| {
                if let Some(theirs) = other.get(element) {
                    node.member &= !theirs.member;
                    node.children = std::mem::take(&mut node.children).difference(&theirs.children);
                }
                !node.is_empty()
            });
        }
        self
    }

    /// As [`Self::difference`], but a member of `other` also takes away everything below it.
    pub(super) fn without_subtrees(mut self, other: &FieldSet<'_>) -> Self {
        if !other.is_empty() {
            self.nodes.retain_mut(|(element, node)| {
                let Some(theirs) = other.get(element) else { return true };
                if theirs.member {
                    return false;
                }
                node.children = std::mem::take(&mut node.children).without_subtrees(&theirs.children);
                !node.is_empty()
            });
        }
        self
    }

    /// Also the named fields that lead to members, which are members of themselves only when they are empty.
    pub(super) fn with_named_fields(mut self, schema: Option<Schema<'_>>) -> Self {
        let shape = schema.map(Schema::shape);
        for (element, node) in &mut self.nodes {
            let below = match (&shape, &*element) {
                (Some(Shape::Struct(fields)), PathElement::Field(name)) => {
                    let field = fields.field(name).map(|(_, field)| field);
                    node.member |= field.is_some() && !node.children.is_empty();
                    field
                }
                (Some(Shape::Map(values)), PathElement::Field(_)) => Some(*values),
                (Some(Shape::List(items)), PathElement::Key(_)) => Some(*items),
                _ => None,
            };
            node.children = std::mem::take(&mut node.children).with_named_fields(below);
        }
        self
    }

    /// Calls `visit` for each member with its path as text: the members of a level first, then what lies below them.
    pub fn for_each_path(&self, visit: &mut dyn FnMut(&str)) {
        self.walk(&mut String::new(), visit);
    }

    fn walk(&self, prefix: &mut String, visit: &mut dyn FnMut(&str)) {
        use std::fmt::Write;
        let length = prefix.len();
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            let _ = write!(prefix, "{element}");
            visit(prefix);
            prefix.truncate(length);
        }
        for (element, node) in &self.nodes {
            let _ = write!(prefix, "{element}");
            node.children.walk(prefix, visit);
            prefix.truncate(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_fields() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            "f:[a-c]".boxed(),
            "v:[1-3]".boxed(),
            "i:[0-2]".boxed(),
            Just("k:{\"name\":\"a\",\"port\":1}".to_owned()).boxed(),
        ];
        let leaf = Just(json!({}));
        leaf.prop_recursive(4, 24, 4, move |inner| {
            (prop::collection::btree_map(key.clone(), inner, 1..4), any::<bool>()).prop_map(|(entries, member)| {
                let mut fields: Map<String, Value> = entries.into_iter().collect();
                if member {
                    fields.insert(".".to_owned(), json!({}));
                }
                Value::Object(fields)
            })
        })
        .prop_map(|mut fields| {
            if let Value::Object(fields) = &mut fields {
                fields.remove(".");
            }
            fields
        })
    }

    fn paths(set: &FieldSet<'_>) -> Vec<String> {
        let mut paths = Vec::new();
        set.for_each_path(&mut |path| paths.push(path.to_owned()));
        paths
    }

    proptest! {
        #[test]
        fn documents_come_back_as_they_were(fields in any_fields()) {
            prop_assert_eq!(FieldSet::decode(&fields).unwrap().encode(), fields);
        }

        #[test]
        fn operations_are_those_of_sets(a in any_fields(), b in any_fields()) {
            let (a, b) = (FieldSet::decode(&a).unwrap(), FieldSet::decode(&b).unwrap());
            let (left, right) = (paths(&a), paths(&b));
            let sorted = |mut paths: Vec<String>| { paths.sort(); paths.dedup(); paths };
            let expected = left.iter().chain(&right).cloned().collect();
            prop_assert_eq!(sorted(paths(&a.clone().union(b.clone()))), sorted(expected));
            let expected = left.iter().filter(|path| right.contains(path)).cloned().collect();
            prop_assert_eq!(sorted(paths(&a.intersection(&b))), sorted(expected));
            let expected = left.iter().filter(|path| !right.contains(path)).cloned().collect();
            prop_assert_eq!(sorted(paths(&a.difference(&b))), sorted(expected));
        }
    }

    #[test]
    fn paths_are_written_as_upstream_writes_them() {
        let fields = json!({"f:spec": {"f:replicas": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}},
            "f:set": {"v:\"x\"": {}}, "x:unknown": {}});
        let set = FieldSet::decode(&fields).unwrap();
        assert_eq!(
            paths(&set),
            [
                ".set[=\"x\"]",
                ".spec.replicas",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].name"
            ]
        );
        for bad in [json!([]), json!({"nonsense": {}}), json!({"k:x": {}}), json!({"f:a": 1})] {
            assert_eq!(FieldSet::decode(&bad), Err(ParseFieldSetError), "{bad}");
        }
    }
}
