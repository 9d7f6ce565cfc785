//! Makes the machine what the plans say: switches, bridge, routes, rules, CNI file, in this order, as the file tells the
//! container runtime that everything else is there.
//!
//! Invariant: doing it again changes nothing.

use std::collections::BTreeSet;

use ipnet::IpNet;
use kedge_netfilter::{Nft, SysctlError, Sysctls, TableKeeper, forward_drops};
use tokio::process::Command;

use crate::cni::{CNI_FILE_NAME, NETWORK_NAME, competitor, ensure_file, find_plugins, plan_cni_config};
use crate::config::{Config, Error};
use crate::link::{Link, Links, Maker};
use crate::record::Record;
use crate::routes::{RouteSpec, gateway, plan_routes};
use crate::rules::plan_rules;

const BRIDGE_NETFILTER: &str = "net.bridge.bridge-nf-call-iptables";

/// Something that does not keep pods from running, but from being reached in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortcoming {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The node's network, with what is kept between rounds.
pub(crate) struct Setup {
    config: Config,
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
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        let sysctls = sysctls(&config.state_dir);
        Ok(Self {
            links: Links::connect()?,
            nft: Nft::default(),
            sysctls,
            tables: Vec::new(),
            tables_for: Vec::new(),
            config,
        })
    }

    /// One round for these pod ranges. What comes back are shortcomings; an error means that pods can't start.
    pub(crate) async fn ensure(&mut self, pod_cidrs: &[IpNet]) -> Result<Vec<Shortcoming>, Error> {
        find_plugins(&self.config.cni_bin_dirs)?;
        let mut shortcomings = Vec::new();
        self.ensure_forwarding(pod_cidrs)?;
        shortcomings.extend(self.ensure_bridge_netfilter(pod_cidrs).await?);
        let bridge = self.ensure_bridge(pod_cidrs).await?;
        self.ensure_no_redirects()?;
        self.ensure_routes(&bridge).await?;
        self.ensure_rules(pod_cidrs).await?;
        let folder = &self.config.cni_config_dir;
        let (file, ipam) = (folder.join(CNI_FILE_NAME), self.config.ipam_dir.join(NETWORK_NAME));
        Record::update(&self.config.state_dir, |record| {
            record.cni_file = Some(file);
            record.ipam_dir = Some(ipam);
        })?;
        if ensure_file(folder, &plan_cni_config(&self.config, pod_cidrs))? {
            tracing::info!(folder = %folder.display(), file = CNI_FILE_NAME, "wrote the CNI configuration");
        }
        shortcomings.extend(self.competing_config());
        shortcomings.extend(self.dropped_by_others().await?);
        Ok(shortcomings)
    }

    fn ensure_forwarding(&self, pod_cidrs: &[IpNet]) -> Result<(), Error> {
        self.sysctls.ensure("net.ipv4.ip_forward", "1")?;
        if has_ipv6(pod_cidrs) {
            self.sysctls.ensure("net.ipv6.conf.all.forwarding", "1")?;
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

    async fn ensure_bridge(&self, pod_cidrs: &[IpNet]) -> Result<Link, Error> {
        let name = &self.config.bridge;
        let wanted: Vec<IpNet> =
            pod_cidrs.iter().filter_map(|range| IpNet::new(gateway(range), range.prefix_len()).ok()).collect();
        if self.links.link(name).await?.is_none() {
            Record::update(&self.config.state_dir, |record| record.bridge = Some(name.clone()))?;
            self.links.add_bridge(name, hardware_address(&wanted), self.config.mtu).await?;
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
        for (spec, message) in self.links.our_routes(Maker::Node, Some(bridge.index)).await? {
            match spec.filter(|spec| wanted.contains(spec)) {
                Some(spec) => drop(found.insert(spec)),
                None => self.links.delete_route(message).await?,
            }
        }
        for route in wanted.difference(&found) {
            self.links.add_route(Maker::Node, route, bridge.index).await?;
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

    fn competing_config(&self) -> Option<Shortcoming> {
        let folder = &self.config.cni_config_dir;
        let other = competitor(folder)?;
        let message = format!(
            "the container runtime takes {} before {CNI_FILE_NAME}: pods join another network; remove it",
            folder.join(other).display()
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
