//! Putting the resources of a definition into the registry and taking them out again.

use std::sync::Arc;

use base64::Engine;
use kedge_kinds::Kind;
use kedge_webhooks::Converter;
use serde_json::Value;

use crate::core::Core;
use crate::object;
use crate::registry::{Custom, Resource};

/// The resources of a definition.
pub(super) fn resources(core: &Core, definition: &Value) -> Vec<Arc<Resource>> {
    let retired = core.shutdown.child_token();
    let (client, conversion) = (core.admission.webhooks().client(), &definition["spec"]["conversion"]);
    let converter = Converter::read(client, object::name(definition), conversion).map(Arc::new);
    let resource = |(kind, version): (Kind, Arc<kedge_custom::Version>)| {
        let kind = Kind { storage_version_hash: hash(definition).into(), ..kind };
        let definition = object::name(definition).to_owned();
        Arc::new(Resource::custom(
            kind,
            Custom { definition, version, retired: retired.clone(), converter: converter.clone() },
        ))
    };
    kedge_custom::kinds(definition, &core.metrics.expressions.timing()).into_iter().map(resource).collect()
}

/// What discovery shows of the version that is stored.
fn hash(definition: &Value) -> String {
    let text = |path: &[&str]| object::text(definition, path).to_owned();
    let (group, kind) = (text(&["spec", "group"]), text(&["spec", "names", "kind"]));
    let version = kedge_custom::storage_version(definition);
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{group}/{version}/{kind}").as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

/// Serves these resources in the place of what the definition had before, unless they are the same.
pub(super) fn serve(core: &Core, definition: &str, resources: Vec<Arc<Resource>>) {
    let of = |known: &&Arc<Resource>| known.custom.as_ref().is_some_and(|custom| custom.definition == definition);
    let registry = core.registry.load_full();
    let before: Vec<Arc<Resource>> = registry.all().filter(of).cloned().collect();
    if is_same(&before, &resources) {
        return;
    }
    core.registry.rcu(|registry| registry.with_definition(definition, &resources));
    core.extensions.groups_changed();
    for resource in before {
        if let Some(custom) = &resource.custom {
            custom.retired.cancel();
        }
    }
}

/// Whether nothing that matters to a request differs.
fn is_same(before: &[Arc<Resource>], after: &[Arc<Resource>]) -> bool {
    let same = |(a, b): (&Arc<Resource>, &Arc<Resource>)| {
        let (Some(old), Some(new)) = (a.version(), b.version()) else { return false };
        let kind = |kind: &Kind| {
            (kind.kind.clone(), kind.list_kind.clone(), kind.version.clone(), kind.verbs.clone(), kind.namespaced)
        };
        kind(&a.kind) == kind(&b.kind)
            && a.kind.short_names == b.kind.short_names
            && a.kind.categories == b.kind.categories
            && a.kind.singular == b.kind.singular
            && a.kind.subresources == b.kind.subresources
            && a.kind.storage_api_version == b.kind.storage_api_version
            && a.is_storage_version == b.is_storage_version
            && old.source() == new.source()
            && a.converter().map(Converter::source) == b.converter().map(Converter::source)
    };
    before.len() == after.len() && before.iter().zip(after).all(same)
}
