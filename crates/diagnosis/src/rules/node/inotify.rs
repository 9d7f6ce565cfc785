//! E10: no further program of a user may watch files. The message speaks of open files; their number is not the trouble.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{one_of_each_machine, says, told};
use crate::rules::{Explains, Layer, Rule, Scope};

/// What is used of the bound when it is said, in hundredths.
const SOON: f64 = 90.0;

pub(super) const RULE: Rule = Rule {
    id: "E10",
    title: "no further program may watch files",
    layer: Layer::System,
    explains: &[Explains { ids: &["D9", "E2", "E6", "W1"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["inotify_init: too many open files"],
    &["failed complete: too many open files"],
    &["failed to create fsnotify watcher: too many open files"],
    &["unable to create fsnotify watcher: too many open files"],
    &["inotify", "too many open files"],
    &["inotify", "Too many open files (os error 24)"],
    &["inotify_add_watch", "no space left on device"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = told(evidence, |line| says(&line.text, FORMS), |_| false);
    let told = told.iter().filter(|told| has_room(evidence, &told.item.place) != Some(true)).map(|told| {
        let text = format!("the user's inotify instances are used up: {}", told.line.text.trim());
        told.finding(Subject::machine(&told.item.place), Certainty::Proven, text, repair())
    });
    let told: Vec<Finding> = told.collect();
    one_of_each_machine(told.into_iter().chain(measured(evidence)))
}

fn measured(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let kinds = ["inotify_instances", "inotify_watches"].into_iter().flat_map(|name| evidence.measures(name));
    kinds.filter_map(|(index, item, used)| {
        let percent = used.value * 100.0 / used.limit.filter(|limit| *limit > 0.0)?;
        if percent < SOON {
            return None;
        }
        let name = used.name.replace('_', " ");
        let text = format!("{} has {} {name} of {}", used.of, used.value, used.limit.unwrap_or_default());
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair());
        finding.severity = if percent < 100.0 { Severity::Warning } else { Severity::Failure };
        Some(finding)
    })
}

/// Whether there is room by now, where it was counted: the bound was raised since.
fn has_room(evidence: &Evidence, place: &crate::evidence::Place) -> Option<bool> {
    let mut here = evidence.measures("inotify_instances").filter(|(_, item, _)| item.place == *place).peekable();
    here.peek()?;
    Some(here.all(|(_, _, used)| used.limit.is_some_and(|limit| used.value * 100.0 < limit * SOON)))
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See who has them",
            "find /proc/*/fd -lname anon_inode:inotify 2>/dev/null | cut -d/ -f3 | sort | uniq -c | sort -rn | head",
        ),
        (
            "Allow more, now and after a reboot",
            "printf 'fs.inotify.max_user_instances=8192\\nfs.inotify.max_user_watches=524288\\n' > /etc/sysctl.d/90-inotify.conf && sysctl --system",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn programs_that_may_not_watch_are_found() {
        for line in [
            "E0722 run.go:74] \"command failed\" err=\"failed to run Kubelet: inotify_init: too many open files\"",
            "E0722 server.go:500] \"Error running ProxyServer\" err=\"failed complete: too many open files\"",
        ] {
            assert_eq!(found_among(&RULE, [logged("kubelet", line)]).len(), 1, "{line}");
        }
        let files = "accept4: too many open files";
        assert_eq!(found_among(&RULE, [logged("kubelet", files)]), [""; 0]);
    }

    #[test]
    fn the_count_is_foreseen_and_has_the_last_word() {
        let used = |used: f64| measured("inotify_instances", "user 0", used, Some(128.0));
        assert_eq!(found_among(&RULE, [used(120.0)]), ["user 0 has 120 inotify instances of 128"]);
        assert_eq!(found_among(&RULE, [used(60.0)]), [""; 0]);
        let line = || logged("kubelet", "failed to create fsnotify watcher: too many open files");
        assert_eq!(found_among(&RULE, [used(60.0), line()]), [""; 0]);
        assert_eq!(found_among(&RULE, [used(128.0), line()]).len(), 1);
    }
}
