//! What Corefiles mean, and what in them is named as not supported.

use super::*;
use crate::corefile::parse;

fn planned(text: &str) -> (Vec<BlockPlan>, Vec<String>) {
    plan(&parse(text).unwrap(), &name("cluster.local").unwrap())
}

#[test]
fn the_usual_corefile_changes_nothing() {
    let text = ".:53 {\n errors\n health {\n lameduck 5s\n }\n ready\n\
                kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n fallthrough in-addr.arpa ip6.arpa\n ttl 30\n }\n\
                prometheus :9153\n forward . /etc/resolv.conf {\n max_concurrent 1000\n }\n\
                cache 30 {\n disable success cluster.local\n disable denial cluster.local\n }\n loop\n reload\n loadbalance\n}\n";
    let (blocks, unsupported) = planned(text);
    assert_eq!(unsupported, [""; 0]);
    let [block] = blocks.as_slice() else { panic!("{blocks:?}") };
    assert!(block.serves_cluster && block.errors && !block.log && block.hosts.is_none());
    assert_eq!(block.lameduck, Some(Duration::from_secs(5)));
    let forward = &block.forwards[0];
    assert_eq!(forward.targets, [Target::File("/etc/resolv.conf".into())]);
    assert_eq!((forward.max_concurrent, forward.cache), (Some(1000), Some(Limits { success: 30, denial: 30 })));
}

#[test]
fn stub_domains_have_resolvers_of_their_own() {
    let (blocks, unsupported) = planned(
        "corp.example:53 {\n forward . 10.0.0.1 tls://10.0.0.2 [fd00::1]:5353 {\n tls_servername dns.example\n policy sequential\n }\n}\n\
         . {\n forward . 10.0.0.9\n forward deep.example 10.0.0.8 {\n except not.deep.example\n force_tcp\n }\n cache {\n success 10 60\n disable denial\n }\n}\n",
    );
    assert_eq!(unsupported, [""; 0]);
    let [stub, rest] = blocks.as_slice() else { panic!("{blocks:?}") };
    assert!(!stub.serves_cluster && rest.serves_cluster);
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(
        stub.forwards[0].targets,
        [
            Target::Plain(address("10.0.0.1:53")),
            Target::Tls(address("10.0.0.2:853")),
            Target::Plain(address("[fd00::1]:5353")),
        ]
    );
    assert_eq!((stub.forwards[0].policy, stub.forwards[0].cache), (Policy::Sequential, None));
    assert_eq!(rest.forwards[0].from.to_ascii(), "deep.example.", "the longest first");
    assert!(rest.forwards[0].force_tcp && rest.forwards[0].except.len() == 1);
    assert_eq!(rest.forwards[1].cache, Some(Limits { success: 60, denial: 0 }));
}

#[test]
fn what_is_not_supported_is_named_and_the_rest_holds() {
    let check = |text: &str, expected: &[&str], blocks: usize| {
        let (planned, unsupported) = planned(text);
        assert_eq!(unsupported, expected, "{text}");
        assert_eq!(planned.len(), blocks, "{text}");
    };
    check(". {\n template IN A {\n answer x\n }\n log\n}\n", &["line 2: the plugin template"], 1);
    check("a.example:1053 b.example {\n errors\n}\n", &["line 1: the zone a.example:1053"], 1);
    check("https://a.example {\n errors\n}\n", &["line 1: the zone https://a.example"], 0);
    check(". {\n}\n. {\n}\n", &["line 3: another block has the zone ."], 1);
    check(". {\n forward . oops 10.0.0.1\n}\n", &["line 2: forward to oops"], 1);
    check(". {\n forward . 10.0.0.1 {\n next NXDOMAIN\n }\n}\n", &["line 3: forward next NXDOMAIN"], 1);
    check(". {\n rewrite type A AAAA\n}\n", &["line 2: rewrite type (only names are rewritten)"], 1);
    check(". {\n cache 30 {\n prefetch 2\n }\n}\n", &["line 3: cache prefetch 2"], 1);
    check(
        ". {\n hosts /etc/other\n}\n",
        &["line 2: hosts /etc/other: only entries in the Corefile itself are read"],
        1,
    );
    check(". {\n hosts {\n oops a\n }\n}\n", &["line 3: hosts oops a"], 1);
    check(". {\n health {\n lameduck 5\n }\n}\n", &["line 3: health lameduck 5"], 1);
    check(". {\n health {\n lameduck -5s\n }\n}\n", &["line 3: health lameduck -5s"], 1);
    check(
        ". {\n health {\n lameduck 99999999999999999999h\n }\n}\n",
        &["line 3: health lameduck 99999999999999999999h"],
        1,
    );
    check(". {\n health {\n lameduck 2m\n }\n}\n", &["line 3: health lameduck 2m (at most 60s)"], 1);
    check(". {\n health {\n other\n }\n}\n", &["line 3: health other"], 1);
    check(". {\n import x/*.override\n}\n", &["line 2: the plugin import"], 1);
    check(
        ". {\n kubernetes other.local\n}\n",
        &["line 2: kubernetes other.local (the cluster's domain is cluster.local.)"],
        1,
    );
}
