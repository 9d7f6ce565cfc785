//! What `kubeadm` and `kedge` say when they look at a machine before they change it: `[ERROR Name]: text`.
//!
//! Both print the same names. Invariant: a check that a person pasted is evidence of that moment; a rule that can see the
//! thing itself believes what it sees.

use crate::evidence::{Evidence, Item};
use crate::finding::Severity;

/// One check that did not pass.
#[derive(Debug)]
pub(super) struct Check<'a> {
    /// Its item's index.
    pub(super) index: usize,
    /// Its item.
    pub(super) item: &'a Item,
    /// An error ends the command, a warning does not.
    pub(super) severity: Severity,
    /// What it says.
    pub(super) text: &'a str,
}

/// Checks of a name, as in `FileContent--proc-sys-net-ipv4-ip_forward`, or of a name that begins so.
pub(super) fn checks<'a>(evidence: &'a Evidence, prefix: &'a str) -> impl Iterator<Item = Check<'a>> {
    evidence.logs().filter_map(move |(index, item, line)| {
        let (severity, name, text) = parse(&line.text)?;
        name.starts_with(prefix).then_some(Check { index, item, severity, text })
    })
}

fn parse(line: &str) -> Option<(Severity, &str, &str)> {
    let forms = [("[ERROR ", Severity::Failure), ("[WARNING ", Severity::Warning)];
    forms.into_iter().find_map(|(opening, severity)| {
        let (_, rest) = line.split_once(opening)?;
        let (name, text) = rest.split_once("]: ")?;
        Some((severity, name, text.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_warnings_are_read() {
        assert_eq!(
            parse("\t[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty"),
            Some((Severity::Failure, "DirAvailable--var-lib-etcd", "/var/lib/etcd is not empty"))
        );
        assert!(matches!(parse("[WARNING Swap]: swap is on"), Some((Severity::Warning, "Swap", _))));
        assert!(parse("[preflight] Running pre-flight checks").is_none());
    }
}
