//! C12: tokens of service accounts are refused, because machines of the control plane have different keys.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

/// One bad token is its owner's trouble.
const OFTEN: usize = 3;
const SIGN: Sign = Sign {
    programs: &["kube-apiserver"],
    words: &[
        &["Unable to authenticate the request", "invalid signature"],
        &["Unable to authenticate the request", "error in cryptographic primitive"],
        &["Unable to authenticate the request", "invalid bearer token, [invalid bearer token"],
        &["Unable to authenticate the request", "invalid bearer token]"],
        &["Unable to authenticate the request", "\"invalid bearer token\""],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "C12",
    title: "machines of the control plane sign tokens with different keys",
    layer: Layer::Api,
    explains: &[Explains { ids: &["G14", "G23", "H2", "H3"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let keys: Vec<_> = evidence.documents("sa.pub").collect();
    let Some((first, item, key)) = keys.first() else { return told(evidence) };
    let Some((other, elsewhere, _)) = keys.iter().find(|(_, _, other)| text(other) != text(key)) else {
        return told(evidence);
    };
    let text =
        format!("{} and {} are different keys: a token of one is refused by the other", item.origin, elsewhere.origin);
    let subject = Subject::new("File", "sa.pub");
    vec![Finding::failure(subject, item, Certainty::Proven, text, vec![*first, *other], repair())]
}

fn told(evidence: &Evidence) -> Vec<Finding> {
    let often =
        SIGN.told_where(evidence, |line| !line.contains("expired")).into_iter().filter(|told| told.count >= OFTEN);
    let finding = |told: crate::rules::signs::Told<'_>| {
        let text = format!("{} refused {} tokens: {}", told.source.subject(), told.count, told.text.trim());
        let subject = Subject::new("File", "sa.pub");
        Finding::failure(subject, told.item, Certainty::Possible, text, told.lines, repair())
    };
    often.map(finding).collect()
}

fn repair() -> Repair {
    Repair::of(&[
        ("Compare the keys on all machines of the control plane", "sha256sum /etc/kubernetes/pki/sa.pub"),
        (
            "Copy the pair that most tokens were signed with to all of them",
            "scp sa.key sa.pub MACHINE:/etc/kubernetes/pki/",
        ),
        ("Restart API servers and controller managers; pods get new tokens when they are made anew", ""),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn refusals_are_found_when_there_are_many() {
        for text in [
            r#"E0722 10:00:00.0 1 authentication.go:75] "Unable to authenticate the request" err="[invalid bearer token, square/go-jose: error in cryptographic primitive]""#,
            r#"E0722 10:00:00.0 1 authentication.go:75] "Unable to authenticate the request" err="invalid bearer token""#,
        ] {
            let lines = |count: usize, age: i64| (0..count).map(move |_| ago(line_of("kube-apiserver", text), age));
            assert_eq!(found_among(&RULE, lines(3, 5)).len(), 1);
            assert_eq!(found_among(&RULE, lines(1, 5)), [""; 0]);
            assert_eq!(found_among(&RULE, lines(3, 7200)), [""; 0]);
        }
        let expired =
            r#""Unable to authenticate the request" err="[invalid bearer token, service account token has expired]""#;
        assert_eq!(found_among(&RULE, (0..9).map(|_| line_of("kube-apiserver", expired))), [""; 0]);
    }

    #[test]
    fn different_keys_are_found() {
        let key = |machine: &str, pin: &str| {
            let mut item = document("sa.pub", json!(pin));
            item.place = Place::Node(machine.to_owned());
            item
        };
        assert_eq!(found_among(&RULE, [key("one", "a"), key("two", "b")]).len(), 1);
        assert_eq!(found_among(&RULE, [key("one", "a"), key("two", "a")]), [""; 0]);
    }
}
