//! Where in an object a check stands, as a chain on the stack: nothing is allocated before something is wrong.

use kedge_meta::FieldPath;

/// A place such as `spec.list[0].name`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    part: Part<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Place<'a> {
    /// The object itself.
    pub(crate) const ROOT: Place<'static> = Place { parent: None, part: Part::Root };

    /// A field.
    pub(crate) fn child<'b>(&'b self, name: &'b str) -> Place<'b> {
        Place { parent: Some(self), part: Part::Field(name) }
    }

    /// An item of a list.
    pub(crate) fn index(&self, index: usize) -> Place<'_> {
        Place { parent: Some(self), part: Part::Index(index) }
    }

    /// An entry of a map, printed in brackets.
    pub(crate) fn key<'b>(&'b self, key: &'b str) -> Place<'b> {
        Place { parent: Some(self), part: Part::Key(key) }
    }

    /// The path that errors carry.
    pub(crate) fn path(&self) -> FieldPath {
        let parent = self.parent.map(Place::path).unwrap_or_default();
        match self.part {
            Part::Root => parent,
            Part::Field(name) => parent.child(name),
            Part::Index(index) => parent.index(index),
            Part::Key(key) => parent.key(key),
        }
    }
}
