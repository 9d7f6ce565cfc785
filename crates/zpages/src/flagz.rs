//! `/flagz`: with which flags a component was started.

use kedge_meta::{ApiStatus, MediaRange};
use serde_json::json;

use crate::form::{Form, object_page, text_page, wanted};
use crate::{Component, Page};

const DEPRECATED: &str = "299 - \"This version of the flagz endpoint is deprecated. Please use a newer version.\"";

/// The page. The error is 406.
pub fn flagz(component: &Component, ranges: &[MediaRange<'_>]) -> Result<Page, ApiStatus> {
    let Component { name, flags, .. } = component;
    Ok(match wanted("Flagz", ranges)? {
        Form::Text => {
            let lines: String = flags.iter().map(|(flag, value)| format!("{flag}={value}\n")).collect();
            text_page(name, "flagz", &lines)
        }
        Form::Object { is_yaml, version } => {
            object_page(("Flagz", name), (is_yaml, version), DEPRECATED, json!({"flags": flags}))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_with_their_values() {
        let flags = [("v", "2"), ("etcd-servers", "")].map(|(flag, value)| (flag.to_owned(), value.to_owned()));
        let component = Component { name: "apiserver", started: Default::default(), flags: flags.into() };
        let check = |accept: &str, content_type: &str, text: &str, has_warning: bool| {
            let page = flagz(&component, &kedge_meta::accept_ranges([accept])).unwrap();
            assert_eq!((page.content_type, page.warning.is_some()), (content_type, has_warning), "{accept}");
            assert!(page.text.ends_with(text), "{}", page.text);
        };
        check("", "text/plain; charset=utf-8", "debugging purposes only.\netcd-servers=\nv=2\n", false);
        let object = r#"{"apiVersion":"config.k8s.io/v1beta1","flags":{"etcd-servers":"","v":"2"},"kind":"Flagz","metadata":{"name":"apiserver"}}"#;
        check("application/json;as=Flagz;g=config.k8s.io;v=v1beta1", "application/json", object, false);
        check("application/yaml;as=Flagz;g=config.k8s.io;v=v1alpha1", "application/yaml", "name: apiserver\n", true);
        let refused = flagz(&component, &kedge_meta::accept_ranges(["application/xml"])).unwrap_err();
        assert_eq!(refused.code, 406);
    }
}
