//! Makes the machine what the plans say: switches, bridge, routes, rules, CNI file, in this order, as the file tells the
//! container runtime that everything else is there.
//!
//! Invariant: doing it again changes nothing.

use std::collections::BTreeSet;

use ipnet::IpNet;
use kedge_netfilter::{Nft, SysctlError, Sysctls, TableKeeper, forward_drops};
use tokio::process::Command;

use crate::agreement::Agreement;
use crate::cni::{CNI_FILE_NAME, NETWORK_NAME, ensure_file, find_plugins, plan_cni_config};
use crate::config::{Config, Error};
use crate::foreign::{Foreign, find_foreign};
use crate::link::{Devices, Link, Links, Maker};
use crate::mode::plan_mtu;
use crate::record::{Record, remove_file};
use crate::routes::{RouteSpec, gateway, plan_routes};
use crate::rules::plan_rules;
use crate::tunnel::underlay_mtu;

const BRIDGE_NETFILTER: &str = "net.bridge.bridge-nf-call-iptables";

/// Something that does not keep pods from running, but from being reached in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortcoming {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What a round came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Pods join our network; with what does not work in it.
    Ours(Vec<Shortcoming>),
    /// Pods join the network of this CNI configuration.
    Foreign { file: String, network: String },
}

/// The node's network, with what is kept between rounds.
pub(crate) struct Setup {
    config: Config,
    agreement: Agreement,
    links: Links,
    nft: Nft,
    sysctls: Sysctls,
    tables: Vec<TableKeeper>,
    tables_for: Vec<IpNet>,
}

pub(crate) fn sysctls(state_dir: &std::path::Path) -> Sysctls {
    Sysctls::new(state_dir.join("network-sysctls.json"))
}

impl Setup {
    pub(crate) fn new(config: Config, agreement: Agreement) -> Result<Self, Error> {
        let sysctls = sysctls(&config.state_dir);
        Ok(Self {
            agreement,
            links: Links::connect()?,
            nft: Nft::default(),
            sysctls,
            tables: Vec::new(),
            tables_for: Vec::new(),
            config,
        })
    }

    /// One round for these pod ranges. An error means that pods can't start.
    pub(crate) async fn ensure(&mut self, pod_cidrs: &[IpNet]) -> Result<Outcome, Error> {
        let foreign = find_foreign(&self.config.cni_config_dir);
        if let Some(Foreign::Network { file, network }) = foreign {
            self.give_way(&file)?;
            return Ok(Outcome::Foreign { file, network });
        }
        self.agreement.say(|said| said.foreign = None);
        find_plugins(&self.config.cni_bin_dirs)?;
        let mut shortcomings: Vec<Shortcoming> =
            foreign.and_then(|foreign| self.broken_config(foreign)).into_iter().collect();
        self.ensure_forwarding(pod_cidrs).await?;
        shortcomings.extend(self.ensure_bridge_netfilter(pod_cidrs).await?);
        let mtu = self.find_mtu().await?;
        let bridge = self.ensure_bridge(pod_cidrs, mtu).await?;
        self.ensure_no_redirects()?;
        self.ensure_routes(&bridge).await?;
        self.ensure_rules(pod_cidrs).await?;
        let folder = &self.config.cni_config_dir;
        let (file, ipam) = (folder.join(CNI_FILE_NAME), self.config.ipam_dir.join(NETWORK_NAME));
        Record::update(&self.config.state_dir, |record| {
            record.cni_file = Some(file);
            record.ipam_dir = Some(ipam);
            record.mtu = mtu.or(record.mtu);
        })?;
        if ensure_file(folder, &plan_cni_config(&self.config, pod_cidrs, mtu))? {
            tracing::info!(folder = %folder.display(), file = CNI_FILE_NAME, mtu, "wrote the CNI configuration");
        }
        shortcomings.extend(self.dropped_by_others().await?);
        self.agreement.say(|said| said.mtu = mtu);
        Ok(Outcome::Ours(shortcomings))
    }

    /// Two configurations would be one too many. What our pods need, bridge, routes and rules, stays for as long as they do.
    fn give_way(&self, file: &str) -> Result<(), Error> {
        let folder = &self.config.cni_config_dir;
        if folder.join(CNI_FILE_NAME).exists() {
            remove_file(&folder.join(CNI_FILE_NAME))?;
            tracing::info!(folder = %folder.display(), file, "another network is configured; removed our CNI configuration");
        }
        self.agreement.say(|said| said.foreign = Some(file.to_owned()));
        Ok(())
    }

    /// The configured MTU, or what is left of that of the nodes' network. Whether there are tunnels is not known right
    /// after a start; what was true before it holds until then.
    async fn find_mtu(&self) -> Result<Option<u32>, Error> {
        if self.config.mtu.is_some() {
            return Ok(self.config.mtu);
        }
        let mut underlay = None;
        for node_ip in &self.config.node_ips {
            let found = underlay_mtu(&self.links, *node_ip).await?;
            underlay = underlay.into_iter().chain(found).min();
        }
        let known = Record::load(&self.config.state_dir)?.mtu;
        let ipv6 = self.config.node_ips.first().is_some_and(std::net::IpAddr::is_ipv6);
        let Some(underlay) = underlay else { return Ok(known) };
        Ok(match self.agreement.get().has_tunnels {
            Some(has_tunnels) => Some(plan_mtu(self.config.mode, underlay, has_tunnels, ipv6)),
            None => Some(known.map_or(plan_mtu(self.config.mode, underlay, false, ipv6), |known| known.min(underlay))),
        })
    }

    async fn ensure_forwarding(&self, pod_cidrs: &[IpNet]) -> Result<(), Error> {
        self.sysctls.ensure("net.ipv4.ip_forward", "1")?;
        if has_ipv6(pod_cidrs) {
            self.ensure_advertisements().await?;
            self.sysctls.ensure("net.ipv6.conf.all.forwarding", "1")?;
        }
        Ok(())
    }

    /// A machine that forwards no longer listens to routers, and so loses the default route and address that they gave it,
    /// unless it is told to listen all the same. Where nobody listens now, nothing changes.
    async fn ensure_advertisements(&self) -> Result<(), Error> {
        for node_ip in self.config.node_ips.iter().filter(|ip| ip.is_ipv6()) {
            let Some(link) = self.links.link_with(*node_ip).await? else { continue };
            let switch = format!("net.ipv6.conf.{}.accept_ra", link.name.replace('.', "/"));
            if self.sysctls.get(&switch).is_ok_and(|value| value.trim() == "1") {
                self.sysctls.ensure(&switch, "2")?;
            }
        }
        Ok(())
    }

    /// Packets that stay on the bridge have to pass the rules too: a pod that reaches another through a Service gets
    /// answers that only the rules can translate back.
    async fn ensure_bridge_netfilter(&self, pod_cidrs: &[IpNet]) -> Result<Option<Shortcoming>, Error> {
        if matches!(self.sysctls.get(BRIDGE_NETFILTER), Err(SysctlError::Absent { .. })) {
            // Most kernels have it as a module; what modprobe says does not matter, the switch does.
            let _ = Command::new("modprobe").arg("br_netfilter").output().await;
        }
        match self.sysctls.ensure(BRIDGE_NETFILTER, "1") {
            Ok(_) => {}
            Err(SysctlError::Absent { .. }) => {
                let message = "the kernel module br_netfilter can't be loaded: pods can't reach pods of this node through \
                               Services (modprobe br_netfilter)";
                return Ok(Some(Shortcoming { reason: "BridgeNetfilterMissing", message: message.to_owned() }));
            }
            Err(error) => return Err(error.into()),
        }
        if has_ipv6(pod_cidrs) {
            self.sysctls.ensure("net.bridge.bridge-nf-call-ip6tables", "1")?;
        }
        Ok(None)
    }

    async fn ensure_bridge(&self, pod_cidrs: &[IpNet], mtu: Option<u32>) -> Result<Link, Error> {
        let name = &self.config.bridge;
        let wanted: Vec<IpNet> =
            pod_cidrs.iter().filter_map(|range| IpNet::new(gateway(range), range.prefix_len()).ok()).collect();
        if self.links.link(name).await?.is_none() {
            Record::update(&self.config.state_dir, |record| record.bridge = Some(name.clone()))?;
            self.links.add_bridge(name, hardware_address(&wanted), mtu).await?;
            tracing::info!(bridge = name, "added the bridge");
        }
        let taken = |problem: String| Error::BridgeTaken { name: name.clone(), problem };
        let link = self.links.link(name).await?.ok_or_else(|| taken("vanished".to_owned()))?;
        if !link.is_bridge {
            return Err(taken("is no bridge".to_owned()));
        }
        let found = self.links.addresses(link.index).await?;
        if let Some(foreign) = found.iter().find(|address| !wanted.contains(address)) {
            return Err(taken(format!("has the address {foreign}, which is not the gateway of this node's pods")));
        }
        if let Some(mtu) = mtu.filter(|mtu| *mtu != link.mtu) {
            self.links.set_mtu(link.index, mtu).await?;
            tracing::info!(
                bridge = name,
                from = link.mtu,
                to = mtu,
                "the MTU of the pod network changes; pods get it when they start"
            );
        }
        if !link.is_up {
            self.links.set_up(link.index).await?;
        }
        for address in wanted.into_iter().filter(|address| !found.contains(address)) {
            self.links.add_address(link.index, address).await?;
        }
        Ok(link)
    }

    /// A pod that reaches another through a Service comes in and goes out by the bridge, for which the kernel would tell
    /// it a shorter way that does not exist. Both switches have to be off.
    fn ensure_no_redirects(&self) -> Result<(), Error> {
        self.sysctls.ensure("net.ipv4.conf.all.send_redirects", "0")?;
        let of_bridge = format!("net.ipv4.conf.{}.send_redirects", self.config.bridge.replace('.', "/"));
        self.sysctls.ensure(&of_bridge, "0")?;
        Ok(())
    }

    async fn ensure_routes(&self, bridge: &Link) -> Result<(), Error> {
        let wanted: BTreeSet<RouteSpec> = plan_routes(&self.config).into_iter().collect();
        let mut found = BTreeSet::new();
        let devices = Devices { bridge: Some(bridge.index), tunnel: None };
        for (spec, message) in self.links.our_routes(Maker::Node, devices).await? {
            match spec.filter(|spec| wanted.contains(spec)) {
                Some(spec) => drop(found.insert(spec)),
                None => self.links.delete_route(message).await?,
            }
        }
        for route in wanted.difference(&found) {
            self.links.add_route(Maker::Node, route, devices).await?;
        }
        Ok(())
    }

    async fn ensure_rules(&mut self, pod_cidrs: &[IpNet]) -> Result<(), Error> {
        if self.tables_for != pod_cidrs || self.tables.is_empty() {
            let plans = [false, true].into_iter().filter_map(|ipv6| plan_rules(&self.config, pod_cidrs, ipv6));
            self.tables = plans.map(|plan| TableKeeper::new(self.nft.clone(), plan)).collect();
            self.tables_for = pod_cidrs.to_vec();
        }
        for table in &mut self.tables {
            table.apply().await?;
            table.verify().await?;
        }
        Ok(())
    }

    fn broken_config(&self, foreign: Foreign) -> Option<Shortcoming> {
        let Foreign::Broken { file, problem } = foreign else { return None };
        let message = format!(
            "the container runtime takes {} before {CNI_FILE_NAME}, and it can't be read ({problem}): pods can't start; \
             repair or remove it",
            self.config.cni_config_dir.join(file).display()
        );
        Some(Shortcoming { reason: "OtherCNIConfiguration", message })
    }

    async fn dropped_by_others(&self) -> Result<Option<Shortcoming>, Error> {
        let drops = forward_drops(&self.nft.list_chains().await?);
        let Some(chain) = drops.first() else { return Ok(None) };
        let message = format!(
            "the chain {} of the table {} {} drops forwarded packets: pods can't reach beyond this node; let through what \
             comes from and goes to the interface {}",
            chain.chain, chain.family, chain.table, self.config.bridge
        );
        Ok(Some(Shortcoming { reason: "ForwardPolicyDrop", message }))
    }
}

fn has_ipv6(ranges: &[IpNet]) -> bool {
    ranges.iter().any(|range| range.addr().is_ipv6())
}

/// A locally administered address made from the first gateway. With one of its own, the bridge keeps its address when
/// pods come and go; otherwise it takes the lowest of its ports', and pods lose their gateway for a moment.
fn hardware_address(gateways: &[IpNet]) -> Vec<u8> {
    let tail = match gateways.first().map(IpNet::addr) {
        Some(std::net::IpAddr::V4(address)) => address.octets(),
        Some(std::net::IpAddr::V6(address)) => {
            let octets = address.octets();
            [octets[4], octets[5], octets[6], octets[7]]
        }
        None => [0, 0, 0, 1],
    };
    [&[0x0a, 0x58][..], &tail].concat()
}
