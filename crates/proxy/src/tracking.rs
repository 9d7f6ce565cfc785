//! Whether the kernel's table of tracked connections has room: when it is full, the kernel drops the first packet of every new
//! connection, to Services and past them, and says so in its own log only.
//!
//! Looks and reports; how large the table is, is the machine's decision.

use kedge_netfilter::Sysctls;

const COUNT: &str = "net.netfilter.nf_conntrack_count";
const MAX: &str = "net.netfilter.nf_conntrack_max";
/// From this share of the table on it is reported, in percent.
const FULL: u64 = 95;

/// What is wrong with the table, in words for people; `None` where it has room, or the kernel has no such table.
pub(crate) fn shortage(sysctls: &Sysctls) -> Option<String> {
    let number = |name: &str| sysctls.get(name).ok()?.parse::<u64>().ok();
    let (count, max) = (number(COUNT)?, number(MAX)?);
    let is_full = max > 0 && count.saturating_mul(100) >= max.saturating_mul(FULL);
    is_full.then(|| {
        format!(
            "{count} of {max} connections that the kernel can track are in use, new ones are dropped or will be; raise \
             {MAX}, or find out who holds them with conntrack -L"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_full_table_is_told_with_the_switch_that_makes_it_larger() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("net/netfilter");
        let sysctls = Sysctls::under(root.path(), root.path().join("memory"));
        assert_eq!(shortage(&sysctls), None, "no table");
        fs::create_dir_all(&folder).unwrap();
        let check = |count: &str, max: &str, expected: bool| {
            fs::write(folder.join("nf_conntrack_count"), format!("{count}\n")).unwrap();
            fs::write(folder.join("nf_conntrack_max"), format!("{max}\n")).unwrap();
            let told = shortage(&sysctls);
            assert_eq!(told.is_some(), expected, "{count} of {max}");
            assert!(told.is_none_or(|text| text.contains("net.netfilter.nf_conntrack_max")));
        };
        check("0", "1000", false);
        check("949", "1000", false);
        check("950", "1000", true);
        check("1000", "1000", true);
        check("5", "0", false);
    }
}
