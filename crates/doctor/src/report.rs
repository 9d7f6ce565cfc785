//! A diagnosis for people: the cause, what follows from it, what proves it, what mends it, and what was not seen.

use std::fmt::Write;

use kedge_diagnosis::{Cause, Certainty, Diagnosis, Place, Severity};

/// Effects that are listed for one cause; the others are counted.
const MOST_EFFECTS: usize = 8;

/// The report as text.
pub fn render(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    match diagnosis.causes.len() {
        0 => text.push_str("Nothing is wrong in what was looked at.\n"),
        1 => text.push_str("1 cause:\n"),
        count => {
            let _ = writeln!(text, "{count} causes, the most likely to matter first:");
        }
    }
    for (index, cause) in diagnosis.causes.iter().enumerate() {
        render_cause(&mut text, index + 1, cause);
    }
    if !diagnosis.not_seen.is_empty() {
        text.push_str("\nnot seen:\n");
        for unseen in &diagnosis.not_seen {
            let _ = writeln!(text, "  {}: {}", unseen.what, unseen.why);
        }
    }
    text
}

fn render_cause(text: &mut String, number: usize, cause: &Cause) {
    let severity = match cause.severity {
        Severity::Failure => "",
        Severity::Warning => "warning, ",
    };
    let certainty = match cause.confidence {
        Certainty::Proven => "proven",
        Certainty::Likely => "likely",
        Certainty::Possible => "possible",
    };
    let _ = writeln!(text, "\n{number}. {} [{}; {severity}{certainty}]", cause.title, cause.id);
    if let Place::Node(node) = &cause.place {
        let _ = writeln!(text, "   on {node}");
    }
    let _ = writeln!(text, "   {}", cause.text);
    if !cause.explains.is_empty() {
        text.push_str("   therefore\n");
        for effect in cause.explains.iter().take(MOST_EFFECTS) {
            let _ = writeln!(text, "   \u{2514} {effect}");
        }
        if let Some(more @ 1..) = cause.explains.len().checked_sub(MOST_EFFECTS) {
            let _ = writeln!(text, "   \u{2514} and {more} more");
        }
    }
    text.push_str("   seen\n");
    for exhibit in &cause.evidence {
        let _ = writeln!(text, "   - {} ({})", exhibit.shown, exhibit.origin);
    }
    text.push_str("   what to do\n");
    for step in &cause.repair.steps {
        let _ = writeln!(text, "   - {}", step.text);
        if let Some(command) = &step.command {
            let _ = writeln!(text, "       {command}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::{Evidence, Fact, Item, Unseen, diagnose};

    #[test]
    fn a_report_has_cause_proof_and_repair() {
        let fact = Fact::Setting { name: "net.ipv4.ip_forward".to_owned(), value: Some("0".to_owned()) };
        let origin = "sysctl net.ipv4.ip_forward".to_owned();
        let item = Item { time: None, place: Place::Node("one".to_owned()), origin, fact };
        let unseen = Unseen { what: "containers".to_owned(), why: "no runtime answers".to_owned() };
        let evidence = Evidence { items: vec![item].into(), unseen: vec![unseen], ..Evidence::default() };
        assert_eq!(
            render(&diagnose(&evidence)),
            "1 cause:\n\n1. the machine does not pass packets on [D1; proven]\n   on one\n   net.ipv4.ip_forward is 0: packets of \
             pods end on this machine\n   seen\n   - net.ipv4.ip_forward = 0 (sysctl net.ipv4.ip_forward)\n   what to do\n   \
             - Pass packets on, now\n       sysctl -w net.ipv4.ip_forward=1\n   - And after a reboot; a later file in the \
             directory may overrule it\n       echo net.ipv4.ip_forward=1 > /etc/sysctl.d/99-kubernetes.conf\n\nnot seen:\n  \
             containers: no runtime answers\n"
        );
    }
}
