//! Image names in full.
//!
//! containerd stores only full names, while people write short ones; the rules are those of the distribution reference
//! grammar as Docker and the CRI apply them. It does not know digests as part of a name: an image that is built has none
//! yet.

/// A name that cannot be an image's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reference:?} is not an image name: {reason}")]
pub struct ReferenceError {
    reference: String,
    reason: &'static str,
}

/// The name with registry and tag: `demo` is `docker.io/library/demo:latest`.
pub fn normalize_reference(reference: &str) -> Result<String, ReferenceError> {
    let fail = |reason| Err(ReferenceError { reference: reference.to_owned(), reason });
    if reference.contains('@') {
        return fail("an image that is built has no digest yet");
    }
    let (domain, rest) = match reference.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (first.to_owned(), rest.to_owned())
        }
        Some(_) => ("docker.io".to_owned(), reference.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{reference}")),
    };
    let (path, tag) = rest.split_once(':').unwrap_or((&rest, "latest"));
    if !path.split('/').all(is_path_component) {
        return fail("its path must be lower-case letters and digits, separated by '.', '_', '-' or '/'");
    }
    if !is_tag(tag) {
        return fail("its tag must be up to 128 letters, digits, '_', '.' or '-', and not begin with '.' or '-'");
    }
    Ok(format!("{domain}/{path}:{tag}"))
}

/// The tag of a full name.
pub(crate) fn tag_of(full: &str) -> &str {
    full.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = |end: Option<&u8>| end.is_some_and(|byte| alphanumeric(*byte));
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|byte| alphanumeric(*byte) || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|byte| word(*byte))
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let check = |given: &str, expected: Option<&str>| {
            assert_eq!(normalize_reference(given).ok().as_deref(), expected, "{given}");
        };
        check("demo", Some("docker.io/library/demo:latest"));
        check("demo:v1", Some("docker.io/library/demo:v1"));
        check("team/demo", Some("docker.io/team/demo:latest"));
        check("registry.k8s.io/pause:3.10", Some("registry.k8s.io/pause:3.10"));
        check("localhost/kedge:v1", Some("localhost/kedge:v1"));
        check("localhost:5000/kedge", Some("localhost:5000/kedge:latest"));
        check("Demo", None);
        check("a.b/c:", None);
        check("a.b/c:.x", None);
        check("a.b//c", None);
        check("a.b/c@sha256:00", None);
        check("", None);
    }
}
