//! F11: a machine's clock is wrong, or nobody keeps it right.

use jiff::Timestamp;

use crate::evidence::{Evidence, Item, Place};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::text;
use crate::rules::lines::one_of_each_machine;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds: etcd warns of one, and tokens, leases and certificates suffer from more.
const WRONG: f64 = 2.0;
/// Seconds by which a lease must lie in the future.
const FUTURE: i64 = 5;
/// Services that keep a clock right.
const KEEPERS: &[&str] = &["chronyd", "chrony", "systemd-timesyncd", "ntpd", "ntp", "ntpsec", "openntpd"];

pub(super) const RULE: Rule = Rule {
    id: "F11",
    title: "a clock is wrong",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["D13"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let offsets = evidence.measures("clock_offset_seconds").filter(|(_, _, offset)| offset.value.abs() >= WRONG);
    let offsets = offsets.map(|(index, item, offset)| {
        let direction = if offset.value > 0.0 { "ahead of" } else { "behind" };
        let text = format!("the clock here is {:.0} s {direction} that of {}", offset.value.abs(), offset.of);
        finding(item, vec![index], text, Certainty::Likely, Severity::Failure)
    });
    one_of_each_machine(offsets.chain(ahead(evidence)).chain(unkept(evidence)))
}

/// Nodes that renew their leases in the future, by their own clocks, while others do not.
fn ahead(evidence: &Evidence) -> Vec<Finding> {
    let leases = evidence.objects("Lease").filter(|(_, _, lease)| lease["metadata"]["namespace"] == "kube-node-lease");
    let leases: Vec<_> = leases
        .filter_map(|(index, item, lease)| {
            let renewed: Timestamp = text(&lease["spec"]["renewTime"]).parse().ok()?;
            let seconds = renewed.as_second() - evidence.gathered.as_second();
            Some((index, item, text(&lease["metadata"]["name"]), seconds))
        })
        .collect();
    // If all of them are ahead, it is the clock of who looks that is wrong.
    if !leases.iter().any(|(.., seconds)| *seconds < FUTURE) {
        return Vec::new();
    }
    let ahead = leases.iter().filter(|(.., seconds)| *seconds >= FUTURE).map(|(index, item, name, seconds)| {
        let told = format!("the clock of {name} is {seconds} s ahead: it renews its lease in the future");
        finding(item, vec![*index], told, Certainty::Likely, Severity::Failure).on_node(name)
    });
    ahead.collect()
}

/// A kernel that knows its clock to be free, and no service that would set it.
fn unkept(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let free = evidence.measures("clock_synchronised").filter(|(_, _, state)| state.value == 0.0);
    free.filter_map(|(index, item, _)| {
        let stopped = stopped_keeper(evidence, &item.place)?;
        let text = "nobody keeps the clock right: no service of time runs, and the kernel knows of none".to_owned();
        Some(finding(item, vec![index, stopped], text, Certainty::Likely, Severity::Warning))
    })
}

/// A service of time that is there and does not run, where none runs.
fn stopped_keeper(evidence: &Evidence, place: &Place) -> Option<usize> {
    let keepers =
        || evidence.units().filter(|(_, item, unit)| item.place == *place && KEEPERS.contains(&unit.name.as_str()));
    let runs = keepers().any(|(_, _, unit)| unit.active == "active");
    keepers().next().filter(|_| !runs).map(|(index, ..)| index)
}

fn finding(item: &Item, proof: Vec<usize>, text: String, certainty: Certainty, severity: Severity) -> Finding {
    let repair = Repair::of(&[
        ("See it", "timedatectl; chronyc tracking"),
        ("Keep it right", "apt-get install chrony && systemctl enable --now chrony"),
        ("Set it at once; certificates need no renewal for this", "chronyc makestep"),
    ]);
    let mut finding = Finding::failure(Subject::machine(&item.place), item, certainty, text, proof, repair);
    finding.severity = severity;
    finding
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_clock_that_is_off_is_found_with_its_direction() {
        let offset = |seconds: f64| measured("clock_offset_seconds", "https://10.0.0.1:6443", seconds, None);
        assert_eq!(
            found_among(&RULE, [offset(-29.0)]),
            ["the clock here is 29 s behind that of https://10.0.0.1:6443"]
        );
        assert_eq!(found_among(&RULE, [offset(40.0)]).len(), 1);
        assert_eq!(found_among(&RULE, [offset(0.6)]), [""; 0]);
    }

    #[test]
    fn a_free_clock_is_a_warning_where_its_keeper_is_stopped() {
        let free = || measured("clock_synchronised", "kernel", 0.0, None);
        assert_eq!(found_among(&RULE, [free(), unit("chronyd", "inactive", "disabled")]).len(), 1);
        assert_eq!(found_among(&RULE, [free(), unit("chronyd", "active", "enabled")]), [""; 0]);
        assert_eq!(found_among(&RULE, [free()]), [""; 0], "a machine inside another one has no keeper of its own");
    }

    #[test]
    fn a_node_that_lives_in_the_future_is_found() {
        let lease = |name: &str, seconds: i64| {
            let renewed = Timestamp::from_second(now().as_second() + seconds).expect("a time").to_string();
            json!({"kind": "Lease", "metadata": {"namespace": "kube-node-lease", "name": name}, "spec": {"renewTime": renewed}})
        };
        assert_eq!(found(&RULE, [lease("one", -4), lease("two", 40)]).len(), 1);
        assert_eq!(found(&RULE, [lease("one", 40), lease("two", 40)]), [""; 0], "the clock here is behind");
        assert_eq!(found(&RULE, [lease("one", -4), lease("two", -600)]), [""; 0]);
    }
}
