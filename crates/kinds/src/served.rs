//! What the generated table of served resources is made of. Names only: behaviour lies in the strategies.

/// One resource in one version, as upstream's discovery shows it.
pub(crate) struct Served {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) verbs: &'static [&'static str],
    pub(crate) storage_version_hash: &'static str,
    pub(crate) subresources: &'static [ServedSubresource],
}

/// A path below a resource's objects, with the kind of its body.
pub(crate) struct ServedSubresource {
    pub(crate) name: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) verbs: &'static [&'static str],
}
