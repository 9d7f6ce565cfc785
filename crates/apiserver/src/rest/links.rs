//! Links in what a proxied backend answers: they are to lead back through the proxy.
//!
//! Pages and redirects of a backend name paths as the backend knows them. Below the proxy these paths begin with the proxy's
//! own. Invariant: only absolute paths on the backend or on the host that the client asked are changed, and everything else
//! of a page stays byte for byte.

use html5gum::Tokenizer;
use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};

/// How much of a page is held to change it; larger pages pass as they are.
pub(super) const LIMIT: usize = 4 << 20;

/// What has a URL, by element.
const ATTRIBUTES: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where a backend is seen by clients.
pub(super) struct Place<'a> {
    /// The path of the proxy, without a slash at its end.
    pub(super) prefix: &'a str,
    /// `host:port` of the backend.
    pub(super) backend: &'a str,
    /// The host that the client asked.
    pub(super) asked: &'a str,
}

/// A change of a URL: what stands at `at` for `length` bytes becomes the prefix.
#[derive(Debug, PartialEq, Eq)]
struct Edit {
    at: usize,
    length: usize,
}

impl Place<'_> {
    /// A URL as the client has to see it.
    pub(super) fn url(&self, url: &str) -> String {
        match self.edit(url) {
            Some(Edit { at, length }) => format!("{}{}{}", &url[..at], self.prefix, &url[at + length..]),
            None => url.to_owned(),
        }
    }

    fn edit(&self, url: &str) -> Option<Edit> {
        let after_scheme = ["http://", "https://", "//"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let Some(rest) = after_scheme else {
            return self.is_outside(url).then_some(Edit { at: 0, length: 0 });
        };
        let path = rest.find('/').map(|at| &rest[at..])?;
        let (host, path_at) = (&rest[..rest.len() - path.len()], url.len() - path.len());
        match self.is_outside(path) {
            true if host == self.asked => Some(Edit { at: path_at, length: 0 }),
            true if host == self.backend => Some(Edit { at: 0, length: path_at }),
            _ => None,
        }
    }

    /// Whether a path is absolute and does not lead through the proxy.
    fn is_outside(&self, path: &str) -> bool {
        path.starts_with('/') && !path.starts_with(self.prefix)
    }

    /// A page with its links changed.
    pub(super) fn page(&self, page: &[u8]) -> Vec<u8> {
        let edits = self.edits(page);
        let mut changed = Vec::with_capacity(page.len() + edits.len() * self.prefix.len());
        let mut done = 0;
        for Edit { at, length } in edits {
            changed.extend_from_slice(&page[done..at]);
            changed.extend_from_slice(self.prefix.as_bytes());
            done = at + length;
        }
        changed.extend_from_slice(&page[done..]);
        changed
    }

    /// The changes of a page, in order.
    fn edits(&self, page: &[u8]) -> Vec<Edit> {
        let mut wanted: &[&str] = &[];
        let mut is_wanted = false;
        let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, span: html5gum::Span<usize>| {
            match event {
                CallbackEvent::OpenStartTag { name } => wanted = attributes_of(name),
                CallbackEvent::AttributeName { name } => {
                    is_wanted = wanted.iter().any(|known| known.as_bytes() == name);
                }
                CallbackEvent::AttributeValue { value } if is_wanted => {
                    let Edit { at, length } = std::str::from_utf8(value).ok().and_then(|url| self.edit(url))?;
                    // What is replaced must stand there as it is: it might be written with character references.
                    let raw = page.get(span.start..span.start + at + length);
                    return (raw == value.get(..at + length)).then_some(Edit { at: span.start + at, length });
                }
                CallbackEvent::EndTag { .. } => wanted = &[],
                _ => {}
            }
            None
        });
        emitter.naively_switch_states(true);
        let Ok(edits) = Tokenizer::new_with_emitter(page, emitter).collect::<Result<Vec<Edit>, _>>();
        edits
    }
}

fn attributes_of(element: &[u8]) -> &'static [&'static str] {
    let found = ATTRIBUTES.iter().find(|(name, _)| name.as_bytes() == element);
    found.map(|(_, attributes)| *attributes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> =
        Place { prefix: "/api/v1/nodes/n/proxy", backend: "10.0.0.1:80", asked: "example.org:6443" };

    #[test]
    fn absolute_paths_lead_through_the_proxy() {
        for (url, expected) in [
            ("/x?y=1#z", "/api/v1/nodes/n/proxy/x?y=1#z"),
            ("x", "x"),
            ("", ""),
            ("#top", "#top"),
            ("/api/v1/nodes/n/proxy/x", "/api/v1/nodes/n/proxy/x"),
            ("http://10.0.0.1:80/x", "/api/v1/nodes/n/proxy/x"),
            ("//10.0.0.1:80/x", "/api/v1/nodes/n/proxy/x"),
            ("https://example.org:6443/x", "https://example.org:6443/api/v1/nodes/n/proxy/x"),
            ("https://elsewhere.org/x", "https://elsewhere.org/x"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(PLACE.url(url), expected, "{url}");
        }
    }

    #[test]
    fn pages_change_in_their_links_only() {
        let page = |link: &str, quoted: &str| {
            format!(
                "<!DOCTYPE html><!-- <a href=\"/c\"> --><A  HREF={quoted} class=\"/k\">1 &lt; 2</A>\n<p title='/t'>\
                 <img alt src='{link}?a=1&amp;b=2'><script>if (a</b) '<a href=\"/s\">'</script><br/>"
            )
        };
        let prefixed = format!("{}/r", PLACE.prefix);
        let changed = PLACE.page(page("/r", "/r").as_bytes());
        assert_eq!(String::from_utf8(changed).unwrap(), page(&prefixed, &prefixed));
        let foreign = page("r", "\"https://elsewhere.org/r\"");
        assert_eq!(PLACE.page(foreign.as_bytes()), foreign.as_bytes());
        let host = PLACE.page(b"<a href='http://10.0.0.1:80/r'>\xff");
        assert_eq!(host, format!("<a href='{prefixed}'>").into_bytes().into_iter().chain([0xff]).collect::<Vec<_>>());
    }
}
