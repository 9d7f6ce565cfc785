//! What a run of drills showed, as a page for people.
//!
//! Pure.

use std::fmt::Write as _;

use crate::verify::Verified;

const HEAD: &str = "# Drills\n\n\
    Written by `kedge drill matrix` from what `kedge drill verify` measured: each scenario of the binary, done on a \
    real cluster. A look is one run of `kedge doctor`; the times have the machine's speed in them, and are those of a debug \
    build.\n\n";

/// The page.
pub fn matrix(drills: &[Verified]) -> String {
    let mut text = HEAD.to_owned();
    let first = drills.iter().filter(|drill| drill.rank == Some(1)).count();
    let share = if drills.is_empty() { 0.0 } else { percent(first, drills.len()) };
    let calm = drills.iter().filter(|drill| drill.bystanders.is_empty()).count();
    let _ = writeln!(
        text,
        "The true cause came first in {first} of {} drills ({share:.0} %). In {calm} of them nobody else was restarted.\n",
        drills.len()
    );
    text.push_str("| scenario | what a person sees | true cause | rank | symptoms after | one look | named after | mended after |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for drill in drills {
        let rank = drill.rank.map_or("not named".to_owned(), |rank| rank.to_string());
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {rank} | {:.1} s | {:.1} s | {:.1} s | {:.1} s |",
            drill.scenario,
            drill.title,
            drill.cause,
            drill.symptoms_after,
            drill.look_took,
            drill.diagnosed_after,
            drill.repaired_after
        );
    }
    text
}

fn percent(part: usize, whole: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "numbers of drills are small")]
    let percent = part as f64 * 100.0 / whole as f64;
    percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drill_has_a_line_and_the_first_ranks_are_counted() {
        let drill = |scenario: &str, rank| Verified {
            scenario: scenario.to_owned(),
            title: "t".to_owned(),
            cause: "A5".to_owned(),
            symptoms_after: 1.0,
            diagnosed_after: 2.0,
            look_took: 0.5,
            rank,
            named: Vec::new(),
            repaired_after: 3.0,
            bystanders: Vec::new(),
        };
        let text = matrix(&[drill("one", Some(1)), drill("two", None)]);
        assert!(text.contains("first in 1 of 2 drills (50 %)"), "{text}");
        assert!(text.contains("| `one` | t | A5 | 1 | 1.0 s | 0.5 s | 2.0 s | 3.0 s |"), "{text}");
        assert!(text.contains("not named"), "{text}");
    }
}
