//! The titles of causes in other languages.
//!
//! What a finding says of this cluster, and what is quoted, stays as it is.

use crate::language::Language;

/// The title of a rule.
pub(crate) fn title(id: &str, english: &'static str, language: Language) -> &'static str {
    match language {
        Language::English => english,
        Language::Korean => KOREAN.iter().find(|(known, _)| *known == id).map_or(english, |(_, title)| *title),
    }
}

const KOREAN: &[(&str, &str)] = &[("D1", "노드가 패킷을 전달하지 않습니다")];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kedge_diagnosis::{Diagnosis, Evidence, Fact, Item, Place, Unseen, diagnose};

    /// One cause on one machine, and something that was not seen.
    pub(crate) fn diagnosis() -> Diagnosis {
        let fact = Fact::Setting { name: "net.ipv4.ip_forward".to_owned(), value: Some("0".to_owned()) };
        let origin = "sysctl net.ipv4.ip_forward".to_owned();
        let item = Item { time: None, place: Place::Node("one".to_owned()), origin, fact };
        let unseen = Unseen { what: "containers".to_owned(), why: "no runtime answers".to_owned() };
        diagnose(&Evidence { items: vec![item].into(), unseen: vec![unseen], ..Evidence::default() })
    }

    #[test]
    fn titles_are_translated() {
        assert_eq!(title("D1", "x", Language::Korean), "노드가 패킷을 전달하지 않습니다");
        assert_eq!(title("D1", "x", Language::English), "x");
    }
}
