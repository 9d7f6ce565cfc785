//! Pages of lists as text: where the next one begins, and what of their objects is evidence.
//!
//! Knows no client: pages come through a channel, so that the next one is on its way while one is read. Invariant: of a list
//! with a broken page, what came before it counts, and the rest is not seen.

use std::borrow::Cow;
use std::fmt;

use kedge_bundle::Reducer;
use kedge_diagnosis::{Evidence, Fact, Item, Place, Unseen};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Resource, chain};

/// A page of the list of a resource.
pub(super) struct Page {
    pub(super) resource: &'static Resource,
    pub(super) text: String,
}

#[derive(Deserialize)]
struct Items<'a> {
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Reads pages until no more come. Blocks.
pub(super) fn read(mut pages: mpsc::Receiver<Page>) -> Evidence {
    let (mut evidence, mut reducer) = (Evidence::default(), Reducer::default());
    let mut broken = None;
    while let Some(Page { resource, text }) = pages.blocking_recv() {
        if broken == Some(resource.name) {
            continue;
        }
        if let Err(error) = page(resource, &text, &mut reducer, &mut evidence) {
            broken = Some(resource.name);
            evidence.unseen.push(Unseen { what: resource.name.to_owned(), why: chain(&error) });
        }
    }
    let well = reducer.well().map(|well| {
        let origin = format!("kubectl get pods -n {}", well.namespace);
        Item { time: None, place: Place::Cluster, origin, fact: Fact::Well(well) }
    });
    evidence.items.extend(well);
    evidence
}

fn page(resource: &Resource, text: &str, reducer: &mut Reducer, evidence: &mut Evidence) -> serde_json::Result<()> {
    let page: Items<'_> = serde_json::from_str(text)?;
    for object in page.items.into_iter().flatten() {
        let kept = reducer.reduce_text(resource.kind, object.get())?;
        evidence.items.extend(kept.map(|object| item(resource.name, object)));
    }
    Ok(())
}

fn item(resource: &str, object: Value) -> Item {
    let time = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .find_map(|path| object.pointer(path)?.as_str()?.parse().ok());
    let resource = resource.split(' ').next().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str();
    let all = namespace.map_or(String::new(), |namespace| format!(" -n {namespace}"));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let origin = format!("kubectl get {resource}{all} {name}");
    Item { time, place: Place::Cluster, origin, fact: Fact::Object(object) }
}

/// The token of the page after this one. API servers write it before the items, which are then not looked at.
pub(super) fn next(page: &str) -> Option<String> {
    let mut next = None;
    // What is wrong with a page is told by who reads all of it.
    let _ = serde_json::Deserializer::from_str(page).deserialize_map(Head(&mut next));
    next.filter(|token| !token.is_empty())
}

/// Reads the fields of a list up to its metadata.
struct Head<'a>(&'a mut Option<String>);

impl<'de> Visitor<'de> for Head<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of the API")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "metadata" {
                *self.0 = map.next_value::<ListMetadata>()?.next;
                break;
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Resource = Resource { name: "pods", path: "/api/v1/pods", kind: "Pod" };

    fn read_all(pages: &[&str]) -> Evidence {
        let (sender, receiver) = mpsc::channel(pages.len());
        for text in pages {
            sender.try_send(Page { resource: &PODS, text: (*text).to_owned() }).expect("there is room");
        }
        drop(sender);
        read(receiver)
    }

    #[test]
    fn the_next_page_is_found_wherever_its_token_stands() {
        let check = |page: &str, wanted: Option<&str>| assert_eq!(next(page).as_deref(), wanted, "{page}");
        check(r#"{"kind":"PodList","metadata":{"resourceVersion":"1","continue":"a"},"items":[{"#, Some("a"));
        check(r#"{"items":[{"metadata":{"continue":"no"}}],"metadata":{"continue":"\u0061"}}"#, Some("a"));
        check(r#"{"metadata":{"continue":""},"items":[]}"#, None);
        check(r#"{"metadata":{},"items":[]}"#, None);
        check(r#"{"items":[]}"#, None);
        check("<html>", None);
    }

    #[test]
    fn a_broken_page_ends_its_list() {
        let list =
            |name: &str| format!(r#"{{"metadata":{{}},"items":[{{"metadata":{{"namespace":"a","name":"{name}"}}}}]}}"#);
        let evidence =
            read_all(&[&list("one"), r#"{"items":[{"metadata":{"name":"tw"#, &list("three"), r#"{"items":null}"#]);
        let origins: Vec<_> = evidence.items.iter().map(|item| item.origin.as_str()).collect();
        assert_eq!(origins, ["kubectl get pods -n a one"]);
        assert_eq!(evidence.unseen.iter().map(|unseen| unseen.what.as_str()).collect::<Vec<_>>(), ["pods"]);
        assert!(read_all(&[r#"{"items":null}"#, r#"{"metadata":{}}"#]).unseen.is_empty());
    }
}
