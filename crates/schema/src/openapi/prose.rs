//! What `kubectl explain` says of the metadata that every object has, custom ones among them.
//!
//! In words of our own, but for those that upstream's tests look for. Other types have no prose.

use super::definitions::META;

/// The description of a field, where there is one.
pub(super) fn description(type_name: &str, field: &str) -> Option<&'static str> {
    if type_name.strip_prefix(META) != Some("ObjectMeta") {
        return None;
    }
    Some(match field {
        "annotations" => "Annotations hold whatever tools want to remember about the object; nobody selects by them.",
        "creationTimestamp" => "CreationTimestamp is a timestamp of the server's clock at which the object was made.",
        "deletionGracePeriodSeconds" => "Seconds between the request to delete the object and its end. Read-only.",
        "deletionTimestamp" => "When the object may be removed, once somebody asked to delete it. Read-only.",
        "finalizers" => "What has to be done, and taken off this list, before the object is removed.",
        "generateName" => "The beginning of a name that the server completes where `name` is not set.",
        "generation" => "Counts the changes of what is wanted of the object. Read-only.",
        "labels" => "Labels are keys and values by which objects are organized and selected.",
        "managedFields" => "Who set which fields, and how. Kept by the server.",
        "name" => "Name is unique among the objects of a resource in a namespace, and cannot be changed.",
        "namespace" => {
            "Namespace is the space in which the name is unique; empty for what belongs to the whole cluster."
        }
        "ownerReferences" => "The objects that this one depends on; it is collected after all of them are gone.",
        "resourceVersion" => "The version that the server gave to this state of the object; only good for comparison.",
        "selfLink" => "No longer set.",
        "uid" => "UID tells the object from all others, also from those of the same name before it. Read-only.",
        _ => return None,
    })
}
