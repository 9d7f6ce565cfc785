//! One file for a browser: it loads nothing, and reads well on paper too.

use std::fmt::Write;

use jiff::Timestamp;
use kedge_diagnosis::{Cause, Diagnosis, Severity};

use crate::junit::escape;
use crate::korean;
use crate::language::Language;
use crate::titles::title;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2733}\
    section{border-left:.3rem solid #c0392b;padding:.2rem 1rem;margin:1.5rem 0;background:#fafbfc}section.warning{border-color:#d68910}\
    code,pre{font:13px/1.45 ui-monospace,monospace;background:#eef1f4}pre{padding:.5rem;overflow-x:auto}h2{margin:.3rem 0}h3{margin:.8rem 0 .2rem}\
    .weight,.origin,time{color:#5d6d7e}table{border-collapse:collapse}td{padding:.15rem .8rem .15rem 0;vertical-align:top}\
    @media(prefers-color-scheme:dark){body{background:#14191f;color:#d7dee6}section{background:#1b222a}code,pre{background:#262f39}}";

pub(crate) fn render(diagnosis: &Diagnosis, language: Language) -> String {
    let words = language.words();
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"{}\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>kedge doctor</title><style>{STYLE}</style></head>\n<body>\n<h1>kedge doctor</h1>\n<p>{}</p>\n",
        language.code(),
        escape(&words.count(diagnosis.causes.len())),
    );
    for cause in &diagnosis.causes {
        render_cause(&mut text, cause, language);
    }
    render_timeline(&mut text, diagnosis, language);
    if !diagnosis.ruled_out.is_empty() {
        let _ = write!(text, "<h2>{}</h2>\n<ul>\n", words.ruled_out);
        for out in &diagnosis.ruled_out {
            let title = escape(title(out.id, out.title, language));
            let _ = writeln!(text, "<li>{} {title}: {}</li>", out.id, escape(&korean::text(&out.why, language)));
        }
        text.push_str("</ul>\n");
    }
    if !diagnosis.not_seen.is_empty() {
        let _ = write!(text, "<h2>{}</h2>\n<ul>\n", words.not_seen);
        for unseen in &diagnosis.not_seen {
            let _ = writeln!(text, "<li>{}: {}</li>", escape(&unseen.what), escape(&unseen.why));
        }
        text.push_str("</ul>\n");
    }
    text.push_str("</body>\n</html>\n");
    text
}

fn render_cause(text: &mut String, cause: &Cause, language: Language) {
    let words = language.words();
    let class = if cause.severity == Severity::Warning { "warning" } else { "failure" };
    let weight = words.weight(cause.severity, cause.confidence);
    let place = words.place(&cause.place).map(|place| format!(", {place}")).unwrap_or_default();
    let _ = write!(
        text,
        "<section class=\"{class}\" id=\"{id}\">\n<h2>{id} {}</h2>\n<p class=\"weight\">{}</p>\n<p>{}</p>\n",
        escape(title(cause.id, cause.title, language)),
        escape(&format!("{weight}{place}")),
        escape(&korean::text(&cause.text, language)),
        id = cause.id,
    );
    if !cause.explains.is_empty() {
        let _ = write!(text, "<h3>{}</h3>\n<ul>\n", words.therefore);
        for effect in &cause.explains {
            let _ = writeln!(text, "<li>{}</li>", escape(&korean::effect(effect, language)));
        }
        text.push_str("</ul>\n");
    }
    let _ = write!(text, "<h3>{}</h3>\n<ul>\n", words.seen);
    for exhibit in &cause.evidence {
        let (shown, origin) = (escape(&exhibit.shown), escape(&exhibit.origin));
        let _ = writeln!(text, "<li><code>{shown}</code> <span class=\"origin\">{origin}</span></li>");
    }
    let _ = write!(text, "</ul>\n<h3>{}</h3>\n", words.what_to_do);
    if cause.repair.dangerous {
        let _ = writeln!(text, "<p><strong>{}</strong></p>", words.dangerous);
    }
    text.push_str("<ol>\n");
    for step in &cause.repair.steps {
        let command = step.command.as_ref().map(|command| format!("<pre>{}</pre>", escape(command)));
        let _ =
            writeln!(text, "<li>{}{}</li>", escape(&korean::text(&step.text, language)), command.unwrap_or_default());
    }
    text.push_str("</ol>\n</section>\n");
}

/// Everything that is quoted and has a time, in its order, with the cause that it proves.
fn render_timeline(text: &mut String, diagnosis: &Diagnosis, language: Language) {
    let timed = diagnosis.causes.iter().flat_map(|cause| {
        cause.evidence.iter().filter_map(move |exhibit| Some((exhibit.time?, cause.id, &exhibit.shown)))
    });
    let mut timed: Vec<(Timestamp, &str, &String)> = timed.collect();
    timed.sort();
    if timed.is_empty() {
        return;
    }
    let _ = write!(text, "<h2>{}</h2>\n<table>\n", language.words().timeline);
    for (time, id, shown) in timed {
        let _ = writeln!(
            text,
            "<tr><td><time>{time}</time></td><td><a href=\"#{id}\">{id}</a></td><td><code>{}</code></td></tr>",
            escape(shown)
        );
    }
    text.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::titles::tests::diagnosis;
    use kedge_diagnosis::{Evidence, Fact, Item, LogFact, LogSource, MeasureFact, Place};
    use proptest::prelude::*;

    #[test]
    fn a_page_is_whole_and_loads_nothing() {
        let text = render(&diagnosis(), Language::Korean);
        assert!(text.contains("<html lang=\"ko\">") && text.ends_with("</html>\n"), "{text}");
        assert!(text.contains("<section class=\"failure\" id=\"D1\">"), "{text}");
        assert!(!text.contains("http") && !text.contains("<script") && !text.contains("src="), "{text}");
    }

    #[test]
    fn the_timeline_is_in_order() {
        let mut diagnosis = diagnosis();
        let exhibit = |second: i64, shown: &str| kedge_diagnosis::Exhibit {
            time: Timestamp::from_second(second).ok(),
            origin: "x".to_owned(),
            shown: shown.to_owned(),
        };
        diagnosis.causes[0].evidence.extend([exhibit(20, "later"), exhibit(10, "sooner")]);
        let text = render(&diagnosis, Language::English);
        let timeline = &text[text.find("<table>").expect("there is one")..];
        assert!(timeline.find("sooner") < timeline.find("later"), "{timeline}");
    }

    /// Lines of stores, each with the second at which it was really written, on machines whose clocks are off.
    fn written(moments: &[(usize, i64)], off: &[i32]) -> Evidence {
        let gathered = Timestamp::from_second(1_800_000_000).expect("a time");
        let at = |machine: usize, fact: Fact, time: Option<Timestamp>| Item {
            time,
            place: Place::Node(format!("m{machine}")),
            origin: "a log".to_owned(),
            fact,
        };
        let clocks = off.iter().enumerate().map(|(machine, off)| {
            let (name, of) = ("clock_offset_seconds".to_owned(), "api".to_owned());
            at(machine, Fact::Measure(MeasureFact { name, of, value: f64::from(*off), limit: None }), None)
        });
        let lines = moments.iter().map(|(machine, ago)| {
            let text = format!("{{\"msg\":\"slow fdatasync\",\"second\":{ago:03}}}");
            let shown = gathered.as_second() - ago + i64::from(off[*machine]);
            let source = LogSource::Unit("etcd".to_owned());
            at(*machine, Fact::Log(LogFact { source, text }), Timestamp::from_second(shown).ok())
        });
        Evidence { gathered, items: clocks.chain(lines).collect(), unseen: Vec::new() }
    }

    proptest! {
        #[test]
        fn clocks_that_are_off_do_not_change_the_order(
            moments in prop::collection::vec((0_usize..3, 100_i64..400), 1..12),
            off in prop::collection::vec(-90_i32..90, 3),
        ) {
            let mut moments = moments;
            // A log is written in the order of its own clock, which is that of time.
            moments.sort_by_key(|(_, ago)| std::cmp::Reverse(*ago));
            let text = render(&kedge_diagnosis::diagnose(&written(&moments, &off)), Language::English);
            let timeline = &text[text.find("<table>").expect("there is one")..];
            let seconds: Vec<&str> = timeline.split("second").skip(1).map(|rest| &rest[rest.find(char::is_numeric).unwrap_or(0)..][..3]).collect();
            prop_assert!(!seconds.is_empty());
            prop_assert!(seconds.windows(2).all(|pair| pair[0] >= pair[1]), "{seconds:?} in {timeline}");
        }
    }
}
