//! For issues and chats.

use std::fmt::Write;

use kedge_diagnosis::{Cause, Diagnosis};

use crate::korean;
use crate::language::Language;
use crate::titles::title;

pub(crate) fn render(diagnosis: &Diagnosis, language: Language) -> String {
    let words = language.words();
    let mut text = format!("# kedge doctor\n\n{}\n", words.count(diagnosis.causes.len()));
    for cause in &diagnosis.causes {
        render_cause(&mut text, cause, language);
    }
    if !diagnosis.ruled_out.is_empty() {
        let _ = writeln!(text, "\n## {}\n", words.ruled_out);
        for out in &diagnosis.ruled_out {
            let title = escape(title(out.id, out.title, language));
            let _ = writeln!(text, "- {}: {title}: {}", out.id, escape(&korean::text(&out.why, language)));
        }
    }
    if !diagnosis.not_seen.is_empty() {
        let _ = writeln!(text, "\n## {}\n", words.not_seen);
        for unseen in &diagnosis.not_seen {
            let _ = writeln!(text, "- {}: {}", escape(&unseen.what), escape(&unseen.why));
        }
    }
    text
}

fn render_cause(text: &mut String, cause: &Cause, language: Language) {
    let words = language.words();
    let weight = words.weight(cause.severity, cause.confidence);
    let place = words.place(&cause.place).map(|place| format!(", {place}")).unwrap_or_default();
    let _ = writeln!(text, "\n## {}: {} ({weight}{place})\n", cause.id, escape(title(cause.id, cause.title, language)));
    let _ = writeln!(text, "{}", escape(&korean::text(&cause.text, language)));
    if !cause.explains.is_empty() {
        let _ = writeln!(text, "\n**{}**\n", words.therefore);
        for effect in &cause.explains {
            let _ = writeln!(text, "- {}", escape(&korean::effect(effect, language)));
        }
    }
    let _ = writeln!(text, "\n**{}**\n", words.seen);
    for exhibit in &cause.evidence {
        let _ = writeln!(text, "- {} ({})", code(&exhibit.shown), escape(&exhibit.origin));
    }
    let _ = writeln!(text, "\n**{}**\n", words.what_to_do);
    if cause.repair.dangerous {
        let _ = writeln!(text, "> {}\n", words.dangerous);
    }
    for (index, step) in cause.repair.steps.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", index + 1, escape(&korean::text(&step.text, language)));
        if let Some(command) = &step.command {
            let _ = writeln!(text, "\n   ```sh\n   {}\n   ```\n", command.replace('\n', "\n   "));
        }
    }
}

/// Text in which nothing is markup.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '<' | '>' | '#' | '[' | ']' | '|') {
            escaped.push('\\');
        }
        escaped.push(if letter == '\n' { ' ' } else { letter });
    }
    escaped
}

/// Text as code, also with backticks in it.
fn code(text: &str) -> String {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if longest > 0 { " " } else { "" };
    format!("{fence}{space}{}{space}{fence}", text.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::titles::tests::diagnosis;

    #[test]
    fn a_report_has_its_parts_as_markdown() {
        let text = render(&diagnosis(), Language::English);
        assert!(text.contains("## D1: the machine does not pass packets on (proven, on one)"), "{text}");
        assert!(text.contains("- `net.ipv4.ip_forward = 0` (sysctl net.ipv4.ip\\_forward)"), "{text}");
        assert!(
            text.contains("1. Pass packets on, now\n\n   ```sh\n   sysctl -w net.ipv4.ip_forward=1\n   ```"),
            "{text}"
        );
        assert!(text.ends_with("## not seen\n\n- containers: no runtime answers\n"), "{text}");
    }

    #[test]
    fn code_with_backticks_stays_code() {
        assert_eq!(code("a `b` c"), "`` a `b` c ``");
        assert_eq!(code("a"), "`a`");
    }
}
