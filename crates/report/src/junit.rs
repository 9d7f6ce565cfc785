//! JUnit's XML, for CI systems: a test for each rule, failed where it found the cause of a failure.

use std::fmt::Write;

use kedge_diagnosis::{Cause, Diagnosis, Severity, rules};

pub(crate) fn render(diagnosis: &Diagnosis) -> String {
    let of = |id: &str| diagnosis.causes.iter().filter(|cause| cause.id == id).collect::<Vec<&Cause>>();
    let is_failed = |id: &str| of(id).iter().any(|cause| cause.severity == Severity::Failure);
    let (tests, failures) = (rules().count(), rules().filter(|rule| is_failed(rule.id)).count());
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(text, "<testsuites name=\"kedge doctor\" tests=\"{tests}\" failures=\"{failures}\">");
    let _ = writeln!(text, "  <testsuite name=\"kedge doctor\" tests=\"{tests}\" failures=\"{failures}\">");
    for rule in rules() {
        let name = format!("{}: {}", rule.id, rule.title);
        let _ = write!(text, "    <testcase classname=\"kedge.doctor\" name=\"{}\"", escape(&name));
        let causes = of(rule.id);
        if causes.is_empty() {
            text.push_str("/>\n");
            continue;
        }
        text.push_str(">\n");
        for cause in causes {
            let _ = match cause.severity {
                Severity::Failure => writeln!(
                    text,
                    "      <failure type=\"{}\" message=\"{}\">{}</failure>",
                    cause.id,
                    escape(&cause.text),
                    escape(&details(cause))
                ),
                Severity::Warning => {
                    writeln!(
                        text,
                        "      <system-out>{}\n{}</system-out>",
                        escape(&cause.text),
                        escape(&details(cause))
                    )
                }
            };
        }
        text.push_str("    </testcase>\n");
    }
    if !diagnosis.not_seen.is_empty() {
        let lines = diagnosis.not_seen.iter().map(|unseen| format!("not seen: {}: {}\n", unseen.what, unseen.why));
        let _ = writeln!(text, "    <system-err>{}</system-err>", escape(&lines.collect::<String>()));
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn details(cause: &Cause) -> String {
    let mut text = String::new();
    for exhibit in &cause.evidence {
        let _ = writeln!(text, "{} ({})", exhibit.shown, exhibit.origin);
    }
    for step in &cause.repair.steps {
        let _ = writeln!(text, "- {} {}", step.text, step.command.as_deref().unwrap_or_default());
    }
    text
}

/// Text for XML and HTML; what neither may hold is left out.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(letter),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::titles::tests::diagnosis;

    #[test]
    fn each_rule_is_a_test() {
        let text = render(&diagnosis());
        assert_eq!(text.matches("<testcase").count(), rules().count());
        assert_eq!(text.matches("<failure type=\"D1\"").count(), 1);
        assert!(text.contains("failures=\"1\"") && text.contains("not seen: containers"), "{text}");
    }

    #[test]
    fn nothing_is_markup_in_a_text() {
        assert_eq!(escape("a<b> & \"c\"\u{1b}"), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}
