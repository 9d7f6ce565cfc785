//! What the machine does with packets that it passes on: the policies of its FORWARD chains, and where their rules lead.
//!
//! Only the chains are asked for, never all rules: a large cluster's Services have hundreds of thousands.

use kedge_diagnosis::{Fact, NetworkFact};

use crate::node::program::output;
use crate::node::reading::Reading;

/// A machine has a handful of such chains.
const MOST_CHAINS: usize = 16;

pub(super) async fn read() -> Reading {
    let mut reading = Reading::default();
    match output("nft", &["list", "chains"]).await {
        Ok(said) => {
            let chains = forward_chains(&String::from_utf8_lossy(&said));
            for (family, table, chain) in chains.into_iter().take(MOST_CHAINS) {
                if let Ok(said) = output("nft", &["list", "chain", &family, &table, &chain]).await {
                    let name = format!("{family} {table} {chain}");
                    reading.add(format!("nft list chain {name}"), nft_chain(&name, &String::from_utf8_lossy(&said)));
                }
            }
        }
        Err(why) => reading.miss("nftables", why),
    }
    // Asked for only where they are in use: asking loads their modules.
    let in_use = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if in_use.lines().any(|table| table == "filter") {
        match output("iptables-legacy", &["-S", "FORWARD"]).await {
            Ok(said) => reading.add("iptables -S FORWARD", iptables_chain(&String::from_utf8_lossy(&said))),
            Err(why) => reading.miss("iptables", why),
        }
    }
    reading
}

/// Family, table and name of chains that see packets which are passed on.
fn forward_chains(said: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let (mut family, mut table, mut chain) = (String::new(), String::new(), String::new());
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", kind, name, ..] => (family, table) = ((*kind).to_owned(), (*name).to_owned()),
            ["chain", name, ..] => chain = (*name).to_owned(),
            _ if line.contains("hook forward") && line.contains("policy") => {
                found.push((family.clone(), table.clone(), chain.clone()));
            }
            _ => {}
        }
    }
    found
}

fn nft_chain(name: &str, said: &str) -> Fact {
    let mut jumps = Vec::new();
    for line in said.lines().map(str::trim).filter(|line| !line.starts_with("type ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let target = words.iter().position(|word| matches!(*word, "jump" | "goto")).and_then(|at| words.get(at + 1));
        match target {
            Some(target) => jumps.push((*target).to_owned()),
            None if words.last() == Some(&"accept") => jumps.push("ACCEPT".to_owned()),
            None => {}
        }
    }
    let drops = said.lines().any(|line| line.contains("hook forward") && line.contains("policy drop"));
    let policy = if drops { "DROP" } else { "ACCEPT" };
    Fact::Network(NetworkFact::ChainPolicy { chain: name.to_owned(), policy: policy.to_owned(), jumps })
}

fn iptables_chain(said: &str) -> Fact {
    let policy = said.lines().find_map(|line| line.strip_prefix("-P FORWARD ")).unwrap_or("ACCEPT");
    let targets = said.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| !matches!(*word, "-j" | "-g"));
        words.nth(1).map(str::to_owned)
    });
    let (chain, policy, jumps) = ("iptables FORWARD".to_owned(), policy.trim().to_owned(), targets.collect());
    Fact::Network(NetworkFact::ChainPolicy { chain, policy, jumps })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fact: Fact) -> (String, String, Vec<String>) {
        match fact {
            Fact::Network(NetworkFact::ChainPolicy { chain, policy, jumps }) => (chain, policy, jumps),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn chains_of_nftables_are_read() {
        let chains = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\ntable inet kedge {\n\tchain other {\n\t}\n}\n";
        assert_eq!(forward_chains(chains), [("ip".to_owned(), "filter".to_owned(), "FORWARD".to_owned())]);
        let chain = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tcounter packets 0 bytes 0 jump DOCKER-USER\n\t\tip saddr 10.244.0.0/16 counter packets 1 bytes 2 accept\n\t}\n}\n";
        let (name, policy, jumps) = read(nft_chain("ip filter FORWARD", chain));
        assert_eq!(
            (name.as_str(), policy.as_str(), jumps),
            ("ip filter FORWARD", "DROP", vec!["DOCKER-USER".to_owned(), "ACCEPT".to_owned()])
        );
    }

    #[test]
    fn chains_of_iptables_are_read() {
        let (_, policy, jumps) = read(iptables_chain(
            "-P FORWARD DROP\n-A FORWARD -m comment --comment x -j KUBE-FORWARD\n-A FORWARD -j FLANNEL-FWD\n",
        ));
        assert_eq!((policy.as_str(), jumps), ("DROP", vec!["KUBE-FORWARD".to_owned(), "FLANNEL-FWD".to_owned()]));
    }
}
