//! What the phases of a control plane do: its static pods, what the cluster keeps, its kubelet, and the add-ons when it is the last.

use std::time::Duration;

use kedge_bootstrap::{ensure_cluster_admins, ensure_cluster_info, ensure_node_bootstrap_rbac};
use tokio::time::Instant;

use super::Upgrade;
use super::addons::{AddonFacts, plan_addons};
use super::cluster_facts::{FoundAddons, find_settled_versions, find_versions, not_upgraded};
use super::kubelet::KubeletUpgrade;
use super::session::Session;
use super::static_pods::StaticPods;
use crate::cluster_configuration::ClusterConfiguration;
use crate::cluster_objects::{apply_objects, upload_cluster_configuration, upload_kubelet_configuration};
use crate::init::{GRANTS, PhaseError, patch_dns};
use crate::join::service_ips;
use crate::manifests::CONTROL_PLANE;
use crate::node_access;
use crate::system_images::{SystemImages, make_system_images, runtime_socket};
use crate::timeouts::go_duration;

/// The add-ons by the parts of their phase.
const PARTS: [(&str, &str); 3] = [("coredns", "CoreDNS"), ("kube-proxy", "kube-proxy"), ("network", "kedge-network")];
const MIRROR_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

impl Upgrade<'_> {
    /// Says what a dry run leaves out; whether this is one.
    pub(super) fn only_says(&self, what: &str) -> bool {
        if self.settings.dry_run {
            (self.say)(&format!("[dryrun] Would {what}"));
        }
        self.settings.dry_run
    }

    /// The image of this binary, and etcd's, for this machine's runtime.
    pub(super) async fn make_images(&self, session: &Session) -> Result<(), PhaseError> {
        let with_etcd = session.host.control_plane.as_ref().is_some_and(|own| own.has_etcd);
        if self.only_says("make the images of the new version") {
            return Ok(());
        }
        (self.say)("[upgrade/preflight] Making the images of the new version from what is installed on this machine");
        make_system_images(runtime_socket(session.host.cri_socket.as_deref()).await, with_etcd).await
    }

    pub(super) async fn upgrade_control_plane(&self, session: &Session) -> Result<(), PhaseError> {
        let (say, version) = (self.say, kedge_meta::full_version());
        let manifests = session.new_manifests(say)?;
        if self.only_says(&format!("upgrade your static Pod-hosted control plane to version \"{version}\"")) {
            for (component, pod) in &manifests {
                let path = session.layout.manifest(component);
                say(&format!("[dryrun] Would write file \"{}\" with content:", path.display()));
                serde_yaml::to_string(pod).unwrap_or_default().lines().for_each(|line| say(&format!("\t{line}")));
            }
            return Ok(());
        }
        say(&format!(
            "[upgrade/control-plane] Upgrading your static Pod-hosted control plane to version \"{version}\" (timeout: \
             {})...",
            go_duration(self.settings.manifest_patience)
        ));
        let runtime = self.runtime(&session.host).await?;
        let pods = StaticPods {
            layout: &session.layout,
            say,
            runtime: &runtime,
            node_name: &session.host.node_name,
            own: session.own()?,
            version: version.to_owned(),
            upgrades_etcd: self.settings.upgrades_etcd,
            patience: self.settings.manifest_patience,
            renews_certificates: self.settings.renews_certificates,
        };
        pods.upgrade(manifests).await?;
        self.wait_for_mirrors(session).await?;
        say("[upgrade/control-plane] The control plane instance for this node was successfully upgraded!");
        Ok(())
    }

    /// The cluster sees what runs here: the next machine and the add-ons go by that.
    async fn wait_for_mirrors(&self, session: &Session) -> Result<(), PhaseError> {
        let (node, version) = (&session.host.node_name, kedge_meta::full_version());
        let deadline = Instant::now() + MIRROR_PATIENCE;
        loop {
            let seen = find_versions(&session.client, &FoundAddons::default()).await;
            let is_new = |component: &&str| {
                let versions = seen.as_ref().map(|seen| seen.of(component)).unwrap_or_default();
                versions.get(version).is_some_and(|nodes| nodes.contains(node))
            };
            let Some(lags) = CONTROL_PLANE.iter().find(|component| !is_new(component)) else { return Ok(()) };
            if Instant::now() > deadline {
                seen?;
                let seconds = MIRROR_PATIENCE.as_secs();
                return Err(PhaseError::Missing(format!(
                    "the pod {lags}-{node} does not show {version} in the API after {seconds} s"
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn upload_config(&self, session: &Session, part: Option<&str>) -> Result<(), PhaseError> {
        if self.only_says("store the configuration in the ConfigMaps kubeadm-config and kubelet-config") {
            return Ok(());
        }
        let kubernetes_version = kedge_meta::full_version().to_owned();
        let cluster = ClusterConfiguration { kubernetes_version, ..session.kept.cluster.clone() };
        if part.is_none_or(|part| part == "kubeadm") {
            upload_cluster_configuration(&session.client, &cluster, self.say).await?;
        }
        if part.is_none_or(|part| part == "kubelet") {
            upload_kubelet_configuration(&session.client, &session.kubelet_document(), self.say).await?;
        }
        Ok(())
    }

    pub(super) async fn kubeconfigs(&self, session: &Session, shares: bool) -> Result<(), PhaseError> {
        if self.only_says("see that the administrators' group has its rights") {
            return Ok(());
        }
        if shares {
            ensure_cluster_admins(&session.client).await?;
        }
        (self.say)("[upgrade/kubeconfig] The kubeconfig files for this node were successfully upgraded!");
        Ok(())
    }

    /// Configuration and start of the kubelet of this machine.
    pub(super) async fn kubelet(&self, session: &Session) -> Result<(), PhaseError> {
        if self.only_says("write the kubelet's configuration and start the kubelet on this binary") {
            return Ok(());
        }
        let balancer = node_access::ask(&session.client).await?;
        let kubelet = KubeletUpgrade {
            patience: self.settings.health_patience,
            layout: &session.layout,
            say: self.say,
            client: &session.client,
            host: &session.host,
            cluster: &session.kept.cluster,
            balancer,
        };
        let document = session.own_kubelet_document(self.say)?;
        kubelet.write(&document)?;
        kubelet.write_flags().await?;
        kubelet.restart(&document).await
    }

    pub(super) async fn bootstrap_tokens(&self, session: &Session) -> Result<(), PhaseError> {
        (self.say)("[upgrade/bootstrap-token] Configuring bootstrap token and cluster-info RBAC rules");
        if self.only_says("make the objects that bootstrap tokens work with") {
            return Ok(());
        }
        ensure_node_bootstrap_rbac(&session.client).await?;
        for what in GRANTS {
            (self.say)(&format!("[bootstrap-token] Configured RBAC rules to allow {what}"));
        }
        let path = session.layout.pki().join("ca.crt");
        let authority = std::fs::read_to_string(&path);
        let authority = authority.map_err(|source| PhaseError::File { path: path.display().to_string(), source })?;
        let server = format!("https://{}", session.kept.cluster.endpoint(&session.own()?.local));
        Ok(ensure_cluster_info(&session.client, &server, &authority).await?)
    }

    /// Only when all control planes are new: an agent must not be newer than an API server that it may meet.
    pub(super) async fn upgrade_addons(&self, session: &Session, part: Option<&str>) -> Result<(), PhaseError> {
        let client = &session.client;
        let found = FoundAddons::read(client).await?;
        let versions = find_settled_versions(client, &found).await?;
        let others = match self.settings.dry_run {
            true => Vec::new(),
            false => not_upgraded(&versions, &session.host.node_name),
        };
        if !others.is_empty() {
            (self.say)(&format!(
                "[upgrade/addon] Skipping upgrade of addons because control plane instances [{}] have not been upgraded",
                others.join(" ")
            ));
            return Ok(());
        }
        let cluster = &session.kept.cluster;
        let address = service_ips(&cluster.networking.service_subnet, 10);
        let facts = AddonFacts {
            cluster,
            endpoint: node_access::host_port(node_access::ask(client).await?, &cluster.endpoint(&session.own()?.local)),
            dns_address: address.first().map(ToString::to_string).unwrap_or_default(),
            image: SystemImages::of_machine(None).kedge,
        };
        let is_asked = |name: &str| part.is_none_or(|part| PARTS.contains(&(part, name)));
        for (name, mut objects) in plan_addons(&facts, &found, self.say) {
            if !is_asked(name) {
                continue;
            }
            if name == "CoreDNS" {
                patch_dns(&session.patches, &mut objects, self.say)?;
            }
            if !self.only_says(&format!("apply the addon {name}")) {
                apply_objects(client, &objects).await?;
                (self.say)(&format!("[addons] Applied essential addon: {name}"));
            }
        }
        Ok(())
    }
}
