//! Units of systemd that a node may have, where systemd runs.

use std::path::Path;

use kedge_diagnosis::{Fact, UnitFact};

use crate::node::journal::PROGRAMS;
use crate::node::program;
use crate::node::reading::Reading;

/// Asked for beside those whose words matter; those that are not there are passed over.
const OTHERS: &[&str] = &[
    "firewalld",
    "ufw",
    "chrony",
    "chronyd",
    "systemd-timesyncd",
    "ntp",
    "ntpd",
    "ntpsec",
    "iscsid",
    "multipathd",
    "systemd-resolved",
    "NetworkManager",
    "keepalived",
    "haproxy",
];

/// Reads them, and returns the names of those that are there.
pub(super) async fn read() -> (Reading, Vec<String>) {
    let mut reading = Reading::default();
    if !Path::new("/run/systemd/system").is_dir() {
        reading.miss("units", "no systemd runs here");
        return (reading, Vec::new());
    }
    let mut arguments = vec!["show", "--no-pager", "--property=Id,ActiveState,UnitFileState,LoadState"];
    arguments.extend(PROGRAMS.iter().chain(OTHERS));
    let said = match program::output("systemctl", &arguments).await {
        Ok(said) => said,
        Err(why) => {
            reading.miss("units", why);
            return (reading, Vec::new());
        }
    };
    let units = parse(&String::from_utf8_lossy(&said));
    let names = units.iter().map(|unit| unit.name.clone()).collect();
    for unit in units {
        reading.add(format!("systemctl status {}", unit.name), Fact::Unit(unit));
    }
    (reading, names)
}

/// Blocks of `Key=value`, one for each unit, with an empty line between them.
fn parse(text: &str) -> Vec<UnitFact> {
    let unit = |block: &str| {
        let value =
            |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        let name = value("Id").trim_end_matches(".service").to_owned();
        let is_there = !name.is_empty() && matches!(value("LoadState"), "loaded" | "masked" | "bad-setting" | "error");
        let enabled = if value("LoadState") == "masked" { "masked" } else { value("UnitFileState") };
        is_there.then(|| UnitFact { name, active: value("ActiveState").to_owned(), enabled: enabled.to_owned() })
    };
    text.split("\n\n").filter_map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_are_there_are_read() {
        let text = "Id=kubelet.service\nLoadState=loaded\nActiveState=activating\nUnitFileState=enabled\n\n\
            Id=crio.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n\n\
            Id=docker.service\nLoadState=masked\nActiveState=inactive\nUnitFileState=masked\n";
        let units: Vec<_> = parse(text).into_iter().map(|unit| (unit.name, unit.active, unit.enabled)).collect();
        let own = |texts: (&str, &str, &str)| (texts.0.to_owned(), texts.1.to_owned(), texts.2.to_owned());
        assert_eq!(units, [own(("kubelet", "activating", "enabled")), own(("docker", "inactive", "masked"))]);
    }
}
