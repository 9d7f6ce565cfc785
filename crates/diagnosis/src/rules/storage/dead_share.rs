//! I9: a server of network storage is gone, and everything that touches what is mounted from it hangs in the kernel.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kernel"],
    words: &[&["nfs: server ", "not responding"], &["NFS: server ", "not responding"]],
    over: &["OK", "still trying succeeded"],
};

pub(super) const RULE: Rule = Rule {
    id: "I9",
    title: "a server of network storage does not answer",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["E2", "E4", "E5", "F6", "I6", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (index, item, process) in evidence.processes().filter(|(_, _, process)| process.state == 'D') {
        let waits = process.waits_in.as_str();
        if !["nfs", "rpc_wait", "cifs"].iter().any(|word| waits.contains(word)) {
            continue;
        }
        if let Some(known) = found.iter_mut().find(|known| known.place == item.place) {
            known.evidence.push(index);
            continue;
        }
        let told = format!(
            "process {} ({}) hangs in {waits}: the server of a mount is gone",
            process.pid,
            process.command.join(" ")
        );
        found.push(Finding::failure(
            Subject::machine(&item.place),
            item,
            Certainty::Proven,
            told,
            vec![index],
            repair(),
        ));
    }
    for told in SIGN.told(evidence) {
        match found.iter_mut().find(|known| known.place == told.item.place) {
            Some(known) => known.evidence.extend(told.lines),
            None => {
                let sentence = format!("the kernel says: {}", told.text.trim());
                let subject = Subject::machine(&told.item.place);
                found.push(Finding::failure(subject, told.item, Certainty::Likely, sentence, told.lines, repair()));
            }
        }
    }
    found
}

fn repair() -> Repair {
    let mut repair = Repair::of(&[
        (
            "Which mounts, of which server?",
            "grep -e nfs -e cifs /proc/mounts; ps -eo pid,stat,wchan:30,args | grep ' D'",
        ),
        ("Bring the server back, or its address: everything goes on then", ""),
        (
            "If it never comes back: let go of the mount, and with it of what was not written",
            "umount -l /var/lib/kubelet/pods/UID/volumes/kubernetes.io~nfs/NAME",
        ),
    ]);
    repair.dangerous = true;
    repair
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn processes_that_hang_on_a_share_are_found_once() {
        let hangs = || process("df", 'D', "rpc_wait_bit_killable");
        assert_eq!(found_among(&RULE, [hangs(), process("du", 'D', "nfs_wait_on_request")]).len(), 1);
        assert_eq!(
            found_among(&RULE, [process("df", 'S', "rpc_wait_bit_killable"), process("sync", 'D', "io_schedule")]),
            [""; 0]
        );
    }

    #[test]
    fn the_kernel_s_word_counts_until_it_is_over() {
        let line = |text: &str| kernel_logged(text);
        assert_eq!(found_among(&RULE, [line("nfs: server 10.0.0.9 not responding, still trying")]).len(), 1);
        assert_eq!(
            found_among(
                &RULE,
                [line("nfs: server 10.0.0.9 not responding, still trying"), line("nfs: server 10.0.0.9 OK")]
            ),
            [""; 0]
        );
    }
}
