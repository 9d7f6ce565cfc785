//! For a terminal: the cause, what follows from it, what proves it, what mends it, and what was not seen.

use std::fmt::Write;

use kedge_diagnosis::{Cause, Diagnosis, Severity};

use crate::korean;
use crate::language::Language;
use crate::titles::title;

/// Effects that are listed for one cause; the others are counted.
const MOST_EFFECTS: usize = 8;

/// The escapes of a terminal, or nothing.
struct Paint(bool);

impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn title(&self, severity: Severity, text: &str) -> String {
        self.wrap(if severity == Severity::Failure { "1;31" } else { "1;33" }, text)
    }

    fn faint(&self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn command(&self, text: &str) -> String {
        self.wrap("36", text)
    }
}

pub(crate) fn render(diagnosis: &Diagnosis, language: Language, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = format!("{}\n", language.words().count(diagnosis.causes.len()));
    for (index, cause) in diagnosis.causes.iter().enumerate() {
        render_cause(&mut text, index + 1, cause, language, &paint);
    }
    render_rest(&mut text, diagnosis, language, &paint);
    text
}

fn render_rest(text: &mut String, diagnosis: &Diagnosis, language: Language, paint: &Paint) {
    let words = language.words();
    if !diagnosis.ruled_out.is_empty() {
        let _ = writeln!(text, "\n{}:", words.ruled_out);
        for out in &diagnosis.ruled_out {
            let _ = writeln!(
                text,
                "  {} [{}]: {}",
                title(out.id, out.title, language),
                out.id,
                korean::text(&out.why, language)
            );
        }
    }
    if !diagnosis.not_seen.is_empty() {
        let _ = writeln!(text, "\n{}:", words.not_seen);
        for unseen in &diagnosis.not_seen {
            let _ = writeln!(text, "  {}", paint.faint(&format!("{}: {}", unseen.what, unseen.why)));
        }
    }
}

fn render_cause(text: &mut String, number: usize, cause: &Cause, language: Language, paint: &Paint) {
    let words = language.words();
    let head = paint.title(cause.severity, title(cause.id, cause.title, language));
    let _ = writeln!(text, "\n{number}. {head} [{}; {}]", cause.id, words.weight(cause.severity, cause.confidence));
    if let Some(place) = words.place(&cause.place) {
        let _ = writeln!(text, "   {place}");
    }
    let _ = writeln!(text, "   {}", korean::text(&cause.text, language));
    if !cause.explains.is_empty() {
        let _ = writeln!(text, "   {}", words.therefore);
        for effect in cause.explains.iter().take(MOST_EFFECTS) {
            let _ = writeln!(text, "   \u{2514} {}", korean::effect(effect, language));
        }
        if let Some(more @ 1..) = cause.explains.len().checked_sub(MOST_EFFECTS) {
            let _ = writeln!(text, "   \u{2514} {}", words.more(more));
        }
    }
    let _ = writeln!(text, "   {}", words.seen);
    for exhibit in &cause.evidence {
        let _ = writeln!(text, "   - {} {}", exhibit.shown, paint.faint(&format!("({})", exhibit.origin)));
    }
    let _ = writeln!(text, "   {}", words.what_to_do);
    if cause.repair.dangerous {
        let _ = writeln!(text, "   ! {}", words.dangerous);
    }
    for step in &cause.repair.steps {
        let _ = writeln!(text, "   - {}", korean::text(&step.text, language));
        if let Some(command) = &step.command {
            let _ = writeln!(text, "       {}", paint.command(command));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::titles::tests::diagnosis;

    #[test]
    fn a_report_has_cause_proof_and_repair() {
        assert_eq!(
            render(&diagnosis(), Language::English, false),
            "1 cause:\n\n1. the machine does not pass packets on [D1; proven]\n   on one\n   net.ipv4.ip_forward is 0: packets of \
             pods end on this machine\n   seen\n   - net.ipv4.ip_forward = 0 (sysctl net.ipv4.ip_forward)\n   what to do\n   \
             - Pass packets on, now\n       sysctl -w net.ipv4.ip_forward=1\n   - And after a reboot; a later file in the \
             directory may overrule it\n       echo net.ipv4.ip_forward=1 > /etc/sysctl.d/99-kubernetes.conf\n\nnot seen:\n  \
             containers: no runtime answers\n"
        );
    }

    #[test]
    fn colours_and_languages_are_as_asked_for() {
        let coloured = render(&diagnosis(), Language::English, true);
        assert!(coloured.contains("\u{1b}[1;31mthe machine does not pass packets on\u{1b}[0m [D1"), "{coloured}");
        let korean = render(&diagnosis(), Language::Korean, false);
        assert!(
            korean.starts_with("원인 1개:\n") && korean.contains("조치 방법") && korean.contains("ip_forward = 0"),
            "{korean}"
        );
    }
}
