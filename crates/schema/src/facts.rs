//! What is known about every built-in type: its fields, their types, defaults and merge rules.
//!
//! The tables under `generated/` are plain `static` data: nothing is parsed or allocated at start-up. They hold facts and
//! no prose. The invariant: fields are sorted by name, types by name and kinds by group, version and kind, so that every
//! look-up here is a binary search.

use crate::generated::{GROUP_VERSIONS, KINDS, TYPES};

/// One structure, such as `io.k8s.api.core.v1.Pod`.
#[derive(Debug)]
pub struct Type {
    /// Name of the OpenAPI definition.
    pub name: &'static str,
    /// Whether server-side apply owns it as a whole (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// The kinds it is the top level of; empty for inner types.
    pub kinds: &'static [Kind],
    /// `x-kubernetes-unions`.
    pub unions: &'static [Union],
    /// Its fields, sorted by name.
    pub fields: &'static [Field],
    /// Its protobuf message, sorted by number; `None` where upstream has none.
    pub message: Option<&'static [Slot]>,
}

/// One numbered field of a protobuf message.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Field number.
    pub number: u16,
    /// What it holds.
    pub content: Content,
}

/// What a numbered field of a protobuf message holds.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// The type's field with this index.
    Field {
        /// Index into the type's fields.
        index: u16,
        /// The Go field is no pointer and JSON leaves zero out, so that a zero says nothing.
        omitempty: bool,
        /// The list is the only field of a message of its own, which may be absent.
        wrapped: bool,
    },
    /// A message whose fields stand, in JSON, among those of the type.
    Inline(&'static [Slot]),
}

/// A group, version and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
}

/// A group version and the hash of all facts that are reachable from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupVersion {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Changes whenever a fact changes.
    pub hash: &'static str,
}

/// Fields of which at most one is set.
#[derive(Debug)]
pub struct Union {
    /// The field that says which one, if there is one.
    pub discriminator: Option<&'static str>,
    /// Field name and discriminator value.
    pub fields: &'static [(&'static str, &'static str)],
}

/// One field of a structure.
#[derive(Debug)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// Type.
    pub ty: FieldType,
    /// Whether the OpenAPI document requires it.
    pub required: bool,
    /// Default value.
    pub default: Default,
    /// Merge rules; `None` when all are the default ones.
    pub merge: Option<&'static Merge>,
}

/// The type of a field, list item or map value.
#[derive(Debug, Clone, Copy)]
pub enum FieldType {
    /// `true` or `false`.
    Boolean,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Double,
    /// Text.
    String,
    /// Base64 text.
    Bytes,
    /// RFC 3339 time in seconds.
    Time,
    /// RFC 3339 time in microseconds.
    MicroTime,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// JSON that is kept as it is, documented as the named definition.
    Json(&'static &'static str),
    /// A structure.
    Object(&'static Type),
    /// A list of items.
    List(&'static FieldType),
    /// A map from text to values.
    Map(&'static FieldType),
}

/// A default from the OpenAPI document. Zero values (`""`, `0`, `{}`) only say that the field is never null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// None.
    Absent,
    /// `{}`.
    Struct,
    /// Text.
    Text(&'static str),
    /// Integer.
    Integer(i64),
    /// Boolean.
    Flag(bool),
}

impl Default {
    /// Whether it is more than Go's zero value.
    pub fn is_meaningful(self) -> bool {
        !matches!(
            self,
            Default::Absent | Default::Struct | Default::Text("") | Default::Integer(0) | Default::Flag(false)
        )
    }
}

/// How a list is merged and owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    Atomic,
    /// By the value of its items.
    Set,
    /// By the key fields of its items.
    Map,
}

/// How a map or structure is merged and owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapType {
    /// As a whole.
    Atomic,
    /// Entry by entry.
    Granular,
}

/// Merge rules of one field.
#[derive(Debug)]
pub struct Merge {
    /// `x-kubernetes-list-type`.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-list-map-keys`.
    pub list_keys: &'static [&'static str],
    /// `x-kubernetes-map-type` on the field.
    pub map_type: Option<MapType>,
    /// Strategic merge patch merges the list by key or value.
    pub patch_merge: bool,
    /// Strategic merge patch replaces the structure.
    pub patch_replace: bool,
    /// Strategic merge patch clears fields that `$retainKeys` does not name.
    pub patch_retain_keys: bool,
    /// `x-kubernetes-patch-merge-key`.
    pub patch_key: Option<&'static str>,
}

impl Slot {
    pub(crate) const fn field(number: u16, index: u16) -> Self {
        Self { number, content: Content::Field { index, omitempty: false, wrapped: false } }
    }

    pub(crate) const fn omitempty(number: u16, index: u16) -> Self {
        Self { number, content: Content::Field { index, omitempty: true, wrapped: false } }
    }

    pub(crate) const fn wrapped(number: u16, index: u16) -> Self {
        Self { number, content: Content::Field { index, omitempty: false, wrapped: true } }
    }

    pub(crate) const fn inline(number: u16, slots: &'static [Slot]) -> Self {
        Self { number, content: Content::Inline(slots) }
    }
}

impl Type {
    /// The field with this JSON name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let index = self.fields.binary_search_by(|field| field.name.cmp(name)).ok()?;
        Some(&self.fields[index])
    }

    /// Name of the Go struct, such as `PodSpec`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// Name of the Go type with its package, such as `v1.PodSpec`.
    pub fn go_name(&self) -> &'static str {
        let mut dots = self.name.rmatch_indices('.').map(|(index, _)| index);
        match (dots.next(), dots.next()) {
            (Some(_), Some(second)) => &self.name[second + 1..],
            _ => self.name,
        }
    }
}

/// Every built-in type, sorted by name.
pub fn types() -> &'static [&'static Type] {
    &TYPES
}

/// Every group version of the built-in kinds.
pub fn group_versions() -> &'static [GroupVersion] {
    &GROUP_VERSIONS
}

/// The type with this OpenAPI definition name.
pub fn type_by_name(name: &str) -> Option<&'static Type> {
    let index = TYPES.binary_search_by(|ty| ty.name.cmp(name)).ok()?;
    Some(TYPES[index])
}

/// The type of a kind. `DeleteOptions` and `WatchEvent` exist in every group version.
pub fn type_by_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    let key = match kind {
        "DeleteOptions" | "WatchEvent" => ("", "v1", kind),
        _ => (group, version, kind),
    };
    let index = KINDS.binary_search_by(|(candidate, _)| candidate.cmp(&key)).ok()?;
    Some(KINDS[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_every_lookup_finds_its_entry() {
        for ty in types() {
            assert!(std::ptr::eq(type_by_name(ty.name).unwrap(), *ty), "{}", ty.name);
            for kind in ty.kinds {
                assert!(std::ptr::eq(type_by_gvk(kind.group, kind.version, kind.kind).unwrap(), *ty), "{}", ty.name);
            }
            for field in ty.fields {
                assert_eq!(ty.field(field.name).unwrap().name, field.name, "{}", ty.name);
            }
        }
        assert!(types().len() > 700);
    }

    #[test]
    fn facts_of_well_known_fields() {
        let pod = type_by_gvk("", "v1", "Pod").unwrap();
        assert_eq!((pod.name, pod.short_name(), pod.go_name()), ("io.k8s.api.core.v1.Pod", "Pod", "v1.Pod"));
        let container = type_by_name("io.k8s.api.core.v1.Container").unwrap();
        let ports = container.field("ports").unwrap();
        let merge = ports.merge.unwrap();
        assert_eq!(merge.list_type, Some(ListType::Map));
        assert_eq!(merge.list_keys, ["containerPort", "protocol"]);
        assert_eq!((merge.patch_merge, merge.patch_key), (true, Some("containerPort")));
        assert!(container.field("name").unwrap().required);
        let protocol = type_by_name("io.k8s.api.core.v1.ContainerPort").unwrap().field("protocol").unwrap();
        assert_eq!(protocol.default, Default::Text("TCP"));
        assert!(type_by_name("io.k8s.api.core.v1.LocalObjectReference").unwrap().atomic);
        assert!(type_by_gvk("apps", "v1", "DeleteOptions").is_some());
        assert!(type_by_gvk("apps", "v1", "Nothing").is_none());
    }
}
