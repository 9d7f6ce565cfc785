//! What the blocks of a Corefile mean here. Pure.
//!
//! Invariant: what is not supported is named with its line, and what stands beside it holds all the same; what this
//! server does anyway (`errors`, `health`, `ready`, `loop`, `reload`, ...) needs no directive and is taken in silence.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::rr::Name;

use super::{Directive, RawBlock};
use crate::cache::Limits;
use crate::hosts::Hosts;
use crate::rewrite::Rewrite;

/// How many resolvers one `forward` may have, as in CoreDNS.
const TARGETS_MAX: usize = 15;
/// For how long a lame duck may answer, at most.
const LAMEDUCK_MAX: Duration = Duration::from_secs(60);
const PLAIN_PORT: u16 = 53;
const TLS_PORT: u16 = 853;

/// A server block.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockPlan {
    pub(crate) zones: Vec<Name>,
    pub(crate) rewrites: Vec<Rewrite>,
    pub(crate) hosts: Option<Hosts>,
    /// Whether names of the cluster are answered by it, where its zone has some.
    pub(crate) serves_cluster: bool,
    pub(crate) forwards: Vec<ForwardPlan>,
    pub(crate) log: bool,
    pub(crate) errors: bool,
    /// For how long it goes on answering when it is to end.
    pub(crate) lameduck: Option<Duration>,
}

/// One `forward`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForwardPlan {
    pub(crate) from: Name,
    pub(crate) except: Vec<Name>,
    pub(crate) targets: Vec<Target>,
    pub(crate) policy: Policy,
    /// Which name the certificates of its resolvers are to have.
    pub(crate) tls_servername: Option<String>,
    /// Who signs these, instead of those whom the machine trusts.
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) force_tcp: bool,
    pub(crate) max_concurrent: Option<usize>,
    /// Nothing is kept where absent.
    pub(crate) cache: Option<Limits>,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Plain(SocketAddr),
    Tls(SocketAddr),
    /// Those in a resolv.conf.
    File(PathBuf),
}

/// Whom to ask first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Policy {
    #[default]
    Random,
    RoundRobin,
    Sequential,
}

/// The blocks that can be followed, and what in them can't.
pub(crate) fn plan(raw: &[RawBlock], domain: &Name) -> (Vec<BlockPlan>, Vec<String>) {
    let mut unsupported = Vec::new();
    let mut blocks: Vec<BlockPlan> = Vec::new();
    for raw in raw {
        let mut planner = Planner { domain, unsupported: &mut unsupported, block: BlockPlan::default(), cache: None };
        planner.zones(raw);
        raw.directives.iter().for_each(|directive| planner.directive(directive));
        let (mut block, cache) = (planner.block, planner.cache);
        block.forwards.iter_mut().for_each(|forward| forward.cache = cache);
        // The longest zone counts.
        block.forwards.sort_by_key(|forward| std::cmp::Reverse(forward.from.num_labels()));
        block.zones.retain(|zone| {
            let is_taken = blocks.iter().any(|other| other.zones.contains(zone));
            if is_taken {
                unsupported.push(format!("line {}: another block has the zone {zone}", raw.line));
            }
            !is_taken
        });
        if !block.zones.is_empty() {
            blocks.push(block);
        }
    }
    (blocks, unsupported)
}

struct Planner<'a> {
    domain: &'a Name,
    unsupported: &'a mut Vec<String>,
    block: BlockPlan,
    cache: Option<Limits>,
}

impl Planner<'_> {
    fn complain(&mut self, directive: &Directive, what: impl std::fmt::Display) {
        self.unsupported.push(format!("line {}: {what}", directive.line));
    }

    fn zones(&mut self, raw: &RawBlock) {
        for key in &raw.keys {
            match zone(key) {
                Some(zone) => {
                    // The cluster can't do without its names: they are served unless another block takes them.
                    self.block.serves_cluster |= zone.is_root();
                    self.block.zones.push(zone);
                }
                None => self.unsupported.push(format!("line {}: the zone {key}", raw.line)),
            }
        }
    }

    fn directive(&mut self, directive: &Directive) {
        match directive.name() {
            "forward" => self.forward(directive),
            "hosts" => self.hosts(directive),
            "rewrite" => match Rewrite::parse(directive) {
                Ok(rewrite) => self.block.rewrites.push(rewrite),
                Err(why) => self.complain(directive, why),
            },
            "cache" => self.cache(directive),
            "log" => self.block.log = true,
            "errors" => self.block.errors = true,
            "kubernetes" => self.kubernetes(directive),
            "health" => directive.options.iter().for_each(|option| self.health(option)),
            "ready" | "prometheus" | "loop" | "reload" | "loadbalance" | "bufsize" => {}
            other => self.complain(directive, format!("the plugin {other}")),
        }
    }

    fn health(&mut self, option: &Directive) {
        match (option.name(), option.arguments()) {
            ("lameduck", [text]) => match duration(text) {
                Some(time) if time <= LAMEDUCK_MAX => self.block.lameduck = Some(time),
                Some(_) => self.complain(option, format!("health lameduck {text} (at most {LAMEDUCK_MAX:?})")),
                None => self.complain(option, format!("health lameduck {text}")),
            },
            _ => self.complain(option, format!("health {}", option.words.join(" "))),
        }
    }

    fn kubernetes(&mut self, directive: &Directive) {
        self.block.serves_cluster = true;
        for argument in directive.arguments() {
            let known = name(argument).filter(|zone| {
                let arpa = ["in-addr.arpa.", "ip6.arpa."].iter().filter_map(|arpa| name(arpa));
                zone == self.domain || arpa.into_iter().any(|arpa| arpa.zone_of(zone))
            });
            if known.is_none() {
                self.complain(directive, format!("kubernetes {argument} (the cluster's domain is {})", self.domain));
            }
        }
        for option in &directive.options {
            if !matches!(option.name(), "pods" | "fallthrough" | "ttl" | "endpoint_pod_names") {
                self.complain(option, format!("kubernetes {}", option.name()));
            }
        }
    }

    fn hosts(&mut self, directive: &Directive) {
        let hosts = self.block.hosts.get_or_insert_with(Hosts::default);
        let mut wrong = Vec::new();
        if let Some(file) = directive.arguments().first() {
            wrong.push((directive, format!("hosts {file}: only entries in the Corefile itself are read")));
        }
        for option in &directive.options {
            match (option.name(), option.arguments()) {
                ("fallthrough", zones) => {
                    let zones: Vec<Name> = zones.iter().filter_map(|zone| name(zone)).collect();
                    hosts.fallthrough = Some(zones);
                }
                ("ttl", [ttl]) if ttl.parse::<u32>().is_ok() => hosts.ttl = ttl.parse().unwrap_or_default(),
                ("no_reverse", []) => hosts.no_reverse = true,
                ("reload", _) => {}
                (address, names) => match address.parse::<IpAddr>() {
                    Ok(address) if hosts.add(address, names) => {}
                    _ => wrong.push((option, format!("hosts {}", option.words.join(" ")))),
                },
            }
        }
        wrong.into_iter().for_each(|(at, what)| self.complain(at, what));
    }

    fn cache(&mut self, directive: &Directive) {
        let mut limits = Limits::CORE_DNS;
        if let Some(ttl) = directive.arguments().first() {
            match ttl.parse::<u32>() {
                Ok(ttl) => (limits.success, limits.denial) = (ttl, ttl),
                Err(_) => self.complain(directive, format!("cache {ttl}")),
            }
        }
        for option in &directive.options {
            let ttl = |at: usize| option.arguments().get(at).and_then(|ttl| ttl.parse::<u32>().ok());
            // Names of the cluster are answered from memory anyway, and never kept.
            let is_for_all = option.arguments().get(1).is_none_or(|zone| zone == ".");
            match (option.name(), option.arguments().first().map(String::as_str)) {
                ("success", _) => limits.success = ttl(1).unwrap_or(limits.success),
                ("denial", _) => limits.denial = ttl(1).unwrap_or(limits.denial),
                ("disable", Some("success")) if is_for_all => limits.success = 0,
                ("disable", Some("denial")) if is_for_all => limits.denial = 0,
                ("disable", Some("success" | "denial")) | ("serve_stale" | "servfail", _) => {}
                _ => self.complain(option, format!("cache {}", option.words.join(" "))),
            }
        }
        self.cache = Some(limits);
    }

    fn forward(&mut self, directive: &Directive) {
        let [from, to @ ..] = directive.arguments() else { return self.complain(directive, "forward without a zone") };
        let Some(from) = name(from) else { return self.complain(directive, format!("forward {from}")) };
        let mut plan = ForwardPlan { from, ..ForwardPlan::default() };
        for text in to {
            match target(text) {
                Some(target) => plan.targets.push(target),
                None => self.complain(directive, format!("forward to {text}")),
            }
        }
        if plan.targets.len() > TARGETS_MAX {
            self.complain(directive, format!("forward to more than {TARGETS_MAX} resolvers"));
            plan.targets.truncate(TARGETS_MAX);
        }
        directive.options.iter().for_each(|option| self.forward_option(&mut plan, option));
        let needs_name = plan.targets.iter().any(|target| matches!(target, Target::Tls(_)));
        if needs_name && plan.tls_servername.is_none() {
            tracing::debug!(line = directive.line, "certificates are to have the address of their resolver");
        }
        self.block.forwards.push(plan);
    }

    fn forward_option(&mut self, plan: &mut ForwardPlan, option: &Directive) {
        match (option.name(), option.arguments()) {
            ("except", names) => plan.except.extend(names.iter().filter_map(|text| name(text))),
            ("policy", [policy]) if policy == "random" => plan.policy = Policy::Random,
            ("policy", [policy]) if policy == "round_robin" => plan.policy = Policy::RoundRobin,
            ("policy", [policy]) if policy == "sequential" => plan.policy = Policy::Sequential,
            ("tls_servername", [name]) => plan.tls_servername = Some(name.clone()),
            ("tls", []) => {}
            ("tls", [file]) => plan.tls_ca = Some(file.into()),
            ("force_tcp", []) => plan.force_tcp = true,
            ("max_concurrent", [count]) if count.parse::<usize>().is_ok() => plan.max_concurrent = count.parse().ok(),
            // How often resolvers are asked for their health, and how long connections stay, is decided here.
            ("prefer_udp" | "expire" | "max_fails" | "health_check" | "failfast_all_unhealthy_upstreams", _) => {}
            _ => self.complain(option, format!("forward {}", option.words.join(" "))),
        }
    }
}

fn target(text: &str) -> Option<Target> {
    if text.starts_with('/') {
        return Some(Target::File(text.into()));
    }
    let (rest, port) = match text.strip_prefix("tls://") {
        Some(rest) => (rest, TLS_PORT),
        None => (text.strip_prefix("dns://").unwrap_or(text), PLAIN_PORT),
    };
    // A name after the address is another way to say `tls_servername`, which counts instead.
    let address = rest
        .parse::<SocketAddr>()
        .or_else(|_| rest.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| SocketAddr::new(address, port)));
    let address = address.ok()?;
    Some(if port == TLS_PORT { Target::Tls(address) } else { Target::Plain(address) })
}

/// The zone of a block's key: without scheme and port, which have to be those of plain DNS.
fn zone(key: &str) -> Option<Name> {
    let key = key.strip_prefix("dns://").unwrap_or(key);
    if key.contains("://") || key.contains('/') {
        return None;
    }
    match key.rsplit_once(':') {
        Some((zone, "53")) => name(zone),
        Some(_) => None,
        None => name(key),
    }
}

/// Reads Go's way of writing durations.
fn duration(text: &str) -> Option<Duration> {
    // What is longer says nothing sensible, and may be more than a duration can hold.
    let read: kube::core::Duration = (1..10).contains(&text.len()).then(|| text.parse().ok())??;
    (!read.is_negative()).then(|| read.into())
}

/// A name that needs no dot at its end.
pub(crate) fn name(text: &str) -> Option<Name> {
    let text = text.trim_end_matches('.').to_ascii_lowercase();
    if text.contains(['{', '}', '$']) {
        return None;
    }
    Name::from_ascii(format!("{text}.")).ok()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
