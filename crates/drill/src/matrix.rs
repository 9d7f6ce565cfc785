//! What a run of drills showed, as a page for people.
//!
//! Pure. Invariant: a drill that could not be done is in the page, and counts as one whose cause was not named.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::verify::Verified;

const HEAD: &str = "# Drills\n\n\
    Written by `kedge drill matrix` from what `kedge drill verify --output json` measured in the end-to-end tests: \
    each scenario of the binary, done on a real cluster (`KEDGE_DRILLS_REPORT=FILE cargo nextest run -p kedge-e2e --test \
    drills`, then `kedge drill matrix FILE > docs/drills.md`). A look is one run of `kedge doctor`; the times have the \
    machine's speed in them, and are those of a debug build.\n\n";
const COLUMNS: &str = "| scenario | what a person sees | true cause | rank | symptoms after | one look | named after | \
    mended after | by | others |\n|---|---|---|---|---|---|---|---|---|---|\n";
const TOGETHER: &str = "\n## Two at once\n\nCauses that have nothing to do with each other, or a quiet one beside one that \
    makes others fail loudly. Both must come first, wherever each can be seen, and no failure beside them.\n\n";

/// A line of what `verify` printed.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Verified(Box<Verified>),
    Failed { scenario: String, cause: String, error: String },
}

impl Line {
    fn scenario(&self) -> &str {
        match self {
            Self::Verified(drill) => &drill.scenario,
            Self::Failed { scenario, .. } => scenario,
        }
    }

    fn verified(&self) -> Option<&Verified> {
        match self {
            Self::Verified(drill) => Some(drill),
            Self::Failed { .. } => None,
        }
    }

    fn row(&self) -> String {
        let drill = match self {
            Self::Verified(drill) => drill,
            Self::Failed { scenario, cause, error } => {
                let error: String = error.replace(['\n', '|'], " ").chars().take(200).collect();
                return format!("| `{scenario}` | not done: {error} | {cause} | | | | | | | |\n");
            }
        };
        let rank = drill.rank.map_or("not named".to_owned(), |rank| rank.to_string());
        format!(
            "| `{}` | {} | {} | {rank} | {:.1} s | {:.1} s | {:.1} s | {:.1} s | {} | {} |\n",
            drill.scenario,
            drill.title,
            drill.cause,
            drill.symptoms_after,
            drill.look_took,
            drill.diagnosed_after,
            drill.repaired_after,
            if drill.fixed { "`--fix`" } else { "hand" },
            others(drill)
        )
    }
}

/// What happened to whom the drill was not about.
fn others(drill: &Verified) -> String {
    let none = Vec::new();
    let strangers = if is_together(&drill.scenario) { &drill.strangers } else { &none };
    let told = [
        ("restarted", &drill.bystanders),
        ("lost", &drill.lost),
        ("still named", &drill.remaining),
        ("named beside", strangers),
    ];
    let told: Vec<String> = told
        .iter()
        .filter(|(_, who)| !who.is_empty())
        .map(|(what, who)| format!("{what}: {}", who.join(", ").replace('|', " ")))
        .collect();
    if told.is_empty() { "well".to_owned() } else { told.join("; ") }
}

/// The page of what `verify` printed, a line each; of several runs of one scenario, the last. `figures` are of other
/// measurements of the doctor: of what, and how many of how many.
pub fn matrix(printed: &str, figures: &[(&str, String)]) -> String {
    let lines = printed.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let drills: BTreeMap<String, Line> = lines.map(|line| (line.scenario().to_owned(), line)).collect();
    let (pairs, single): (Vec<&Line>, Vec<&Line>) = drills.values().partition(|line| is_together(line.scenario()));
    let verified = |lines: &[&Line], is: fn(&Verified) -> bool| {
        lines.iter().filter_map(|line| line.verified()).filter(|drill| is(drill)).count()
    };
    let first = verified(&single, |drill| drill.rank == Some(1));
    let both = verified(&pairs, |drill| drill.rank == Some(1) && drill.strangers.is_empty());
    let calm = drills.values().filter_map(Line::verified).filter(|drill| others(drill) == "well").count();
    let fixed = verified(&single, |drill| drill.fixed);
    let recorded = verified(&single, |drill| drill.scenario.starts_with("recorded-"));
    let mut text = HEAD.to_owned();
    text.push_str("## How often the first cause is the true one\n\n| of | right |\n|---|---|\n");
    let _ = writeln!(
        text,
        "| drills, done on real clusters | {first} of {} ({}) |\n| two drills at once, on real clusters: both, and no failure \
         beside them | {both} of {} ({}) |",
        single.len(),
        share(first, single.len()),
        pairs.len(),
        share(both, pairs.len())
    );
    for (what, figure) in figures {
        let _ = writeln!(text, "| {what} | {figure} |");
    }
    let _ = writeln!(
        text,
        "\nIn {calm} of {} drills nobody else was restarted, nothing that the API server had acknowledged was lost, and \
         nothing was named any more once all was back. {fixed} were mended by `kedge doctor --fix`, the others as their scenarios \
         say; {recorded} are recorded evidence (`recorded-*`), and nothing was broken.\n\n## Each drill\n",
        drills.len()
    );
    text.push_str(COLUMNS);
    text.extend(single.iter().map(|line| line.row()));
    text.push_str(TOGETHER);
    text.push_str(COLUMNS);
    text.extend(pairs.iter().map(|line| line.row()));
    text
}

/// Whether it is of several scenarios that were done at once.
fn is_together(scenario: &str) -> bool {
    scenario.contains('+')
}

/// In tenths of a percent, rounded down.
fn share(part: usize, whole: usize) -> String {
    let permille = (part * 1000).checked_div(whole).unwrap_or_default();
    format!("{}.{} %", permille / 10, permille % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn drill(scenario: &str, rank: Option<usize>, lost: &[&str]) -> String {
        json!({"scenario": scenario, "title": "t", "cause": "A5", "symptomsAfter": 1.0, "diagnosedAfter": 2.0,
            "lookTook": 0.5, "rank": rank, "named": [], "repairedAfter": 3.0, "bystanders": [], "lost": lost,
            "remaining": [], "strangers": [], "fixed": scenario == "one"})
        .to_string()
    }

    #[test]
    fn every_drill_has_a_line_and_the_first_ranks_are_counted() {
        let failed = json!({"scenario": "three", "cause": "A6", "error": "no\nway"}).to_string();
        let pair = drill("one+two", Some(1), &[]).replace("\"strangers\":[]", "\"strangers\":[\"W1 x\"]");
        let lines = [drill("two", Some(1), &[]), drill("one", Some(1), &[]), drill("two", None, &["x"]), failed, pair];
        let text = matrix(&lines.join("\n"), &[("fixtures", "3 of 3 (100.0 %)".to_owned())]);
        for words in [
            "| drills, done on real clusters | 1 of 3 (33.3 %) |",
            "| fixtures | 3 of 3 (100.0 %) |",
            "| two drills at once, on real clusters: both, and no failure beside them | 0 of 1 (0.0 %) |",
            "In 1 of 4 drills nobody else",
            "1 were mended by `kedge doctor --fix`",
            "| `one` | t | A5 | 1 | 1.0 s | 0.5 s | 2.0 s | 3.0 s | `--fix` | well |",
            "| `two` | t | A5 | not named | 1.0 s | 0.5 s | 2.0 s | 3.0 s | hand | lost: x |",
            "| hand | named beside: W1 x |",
            "| `three` | not done: no way | A6 |",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }
}
