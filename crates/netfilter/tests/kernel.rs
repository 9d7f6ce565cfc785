//! The keeper against the kernel, in a network namespace that the test makes and that ends with it. Needs root and nft;
//! without them each test says that it was skipped.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;

use kedge_netfilter::{
    Applied, Chain, Family, Fragment, Hook, Nft, SetSpec, Skeleton, TableKeeper, Verified, ruleset_generation,
};
use nix::sched::{CloneFlags, unshare};

/// Runs a test on a thread of its own inside a new network namespace.
fn in_new_namespace<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) {
    if kedge_skip::skipped_without_root(name) {
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts").block_on(test());
    });
    thread.join().unwrap();
}

fn skeleton() -> Skeleton {
    let hook = Some(Hook { kind: "nat", hook: "prerouting", priority: "dstnat" });
    let rules = vec!["ip daddr . meta l4proto . th dport vmap @service-ips".to_owned()];
    Skeleton {
        family: Family::Ip,
        name: "kedge-test".to_owned(),
        comment: "a test".to_owned(),
        containers: BTreeMap::from([(
            "service-ips".to_owned(),
            SetSpec::verdict_map("ipv4_addr . inet_proto . inet_service", "services"),
        )]),
        chains: BTreeMap::from([("nat-prerouting".to_owned(), Chain { hook, rules })]),
    }
}

fn service(endpoint: &str) -> Fragment {
    let mut fragment = Fragment::default();
    fragment.chains.insert(
        format!("endpoint-a/{endpoint}"),
        vec![
            "update @affinity-a/b { ip saddr timeout 60s }".to_owned(),
            format!("meta l4proto tcp dnat to {endpoint}:80"),
        ],
    );
    fragment.chains.insert(
        "service-a/b".to_owned(),
        vec![format!("numgen random mod 1 vmap {{ 0 : goto endpoint-a/{endpoint} }}")],
    );
    let flags = Some("dynamic,timeout".to_owned());
    fragment.sets.insert("affinity-a/b".to_owned(), SetSpec { flags, ..SetSpec::set("ipv4_addr") });
    fragment.map("service-ips", "10.96.0.1 . tcp . 80".to_owned(), "goto service-a/b".to_owned(), Some("a/b"));
    fragment
}

async fn nft(arguments: &str) -> String {
    let output = tokio::process::Command::new("nft").args(arguments.split(' ')).output().await.unwrap();
    assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn differences_adoption_and_repair() {
    in_new_namespace("differences_adoption_and_repair", || async {
        let mut first = TableKeeper::new(Nft::default(), skeleton());
        first.put("a/b", service("10.0.0.1"));
        assert_eq!(first.apply().await.unwrap(), Applied::Replaced);
        let generation = ruleset_generation().unwrap();
        first.put("a/b", service("10.0.0.2"));
        assert_eq!(first.apply().await.unwrap(), Applied::Difference);
        assert_eq!(ruleset_generation().unwrap(), generation + 1, "a change is one transaction");
        assert_eq!(first.apply().await.unwrap(), Applied::Nothing);
        assert_eq!(first.verify().await.unwrap(), Verified::Intact);
        let table = nft("list table ip kedge-test").await;
        assert!(table.contains("dnat to 10.0.0.2:80") && !table.contains("dnat to 10.0.0.1:80"), "{table}");

        nft("add element ip kedge-test affinity-a/b { 9.9.9.9 timeout 60s }").await;
        let mut second = TableKeeper::new(Nft::default(), skeleton());
        second.put("a/b", service("10.0.0.3"));
        assert_eq!(second.apply().await.unwrap(), Applied::Adopted);
        let table = nft("list table ip kedge-test").await;
        assert!(table.contains("9.9.9.9") && table.contains("dnat to 10.0.0.3:80"), "{table}");
        assert_eq!(second.state().stale().len(), 2, "{:?}", second.state().stale());

        nft("flush chain ip kedge-test service-a/b").await;
        assert_eq!(second.verify().await.unwrap(), Verified::Restored);
        nft("flush ruleset").await;
        assert_eq!(second.verify().await.unwrap(), Verified::Restored);
        assert!(nft("list table ip kedge-test").await.contains("goto endpoint-a/10.0.0.3"));
        nft("delete element ip kedge-test service-ips { 10.96.0.1 . tcp . 80 }").await;
        assert_eq!(second.verify().await.unwrap(), Verified::Restored, "one element is missed");
        assert!(nft("list table ip kedge-test").await.contains("10.96.0.1 . tcp . 80"));
        assert_eq!(second.verify().await.unwrap(), Verified::Intact);

        assert!(Nft::default().delete_table(Family::Ip, "kedge-test").await.unwrap());
        assert!(!Nft::default().delete_table(Family::Ip, "kedge-test").await.unwrap());
    });
}

#[test]
fn a_table_with_other_hooks_is_replaced_and_a_bad_rule_leaves_everything_as_it_was() {
    in_new_namespace("a_table_with_other_hooks_is_replaced", || async {
        nft("add table ip kedge-test").await;
        nft("add chain ip kedge-test nat-prerouting { type nat hook prerouting priority -90 ; }").await;
        let mut keeper = TableKeeper::new(Nft::default(), skeleton());
        keeper.put("a/b", service("10.0.0.1"));
        assert_eq!(keeper.apply().await.unwrap(), Applied::Replaced);
        let before = nft("list ruleset").await;
        let mut bad = Fragment::default();
        bad.chains.insert("bad".to_owned(), vec!["no such rule".to_owned()]);
        keeper.put("bad", bad);
        assert_eq!(keeper.apply().await.unwrap_err().reason(), "NftRefused");
        assert_eq!(nft("list ruleset").await, before);
        keeper.put("bad", Fragment::default());
        keeper.apply().await.unwrap();
        assert_eq!(nft("list ruleset").await, before);
    });
}
