//! The member of etcd of a control plane that joins, next to those that are there.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kedge_client::Client;
use kube::Api;
use kube::api::ListParams;
use tokio::time::Instant;

use super::Join;
use crate::etcd_members::EtcdMembers;
use crate::health_wait::HEALTH_PATIENCE;
use crate::init::{PhaseError, failed};
use crate::manifests::{EtcdMember, etcd_pod};

const PROMOTE_PAUSE: Duration = Duration::from_millis(500);
const ETCD_ENDPOINT: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";

impl Join<'_> {
    pub(super) async fn check_etcd(&self) -> Result<(), PhaseError> {
        let found = self.found().await?;
        if found.configuration.local_etcd().is_none() {
            (self.say)("[check-etcd] Skipping etcd check in external mode");
            return Ok(());
        }
        if self.only_says("check that the etcd cluster is healthy") {
            return Ok(());
        }
        (self.say)("[check-etcd] Checking that the etcd cluster is healthy");
        let client = self.admin().await?;
        for address in known_members(&client).await? {
            let members = EtcdMembers::at(address, &found.layout.pki()).map_err(missing)?;
            members.list().await.map_err(missing)?;
        }
        Ok(())
    }

    pub(super) async fn etcd_join(&self) -> Result<(), PhaseError> {
        let found = self.found().await?;
        if found.configuration.local_etcd().is_none() {
            (self.say)("[control-plane-join] Using external etcd - no local stacked instance added");
            return Ok(());
        }
        let own = self.control_plane()?;
        if self.only_says("add a member to etcd and create its static Pod manifest") {
            return Ok(());
        }
        let client = self.admin().await?;
        let peer = format!("https://{}", SocketAddr::new(self.settings.node_ip, 2380));
        (self.say)("[etcd] Announced new etcd member joining to the existing etcd cluster");
        let (etcd, members) = self.ensure_member(&client, &peer).await?;
        (self.say)("[etcd] Creating static Pod manifest for \"etcd\"");
        self.put_manifest("etcd", etcd_pod(&self.manifest_facts(found, own), &found.layout, &members))?;
        (self.say)("[etcd] Waiting for the new etcd member to join the cluster. This can take up to 4m0s");
        promote(&etcd, &peer).await
    }

    /// The member that answered, and all members with the new one among them.
    async fn ensure_member(&self, client: &Client, peer: &str) -> Result<(EtcdMembers, Vec<EtcdMember>), PhaseError> {
        let pki = self.found().await?.layout.pki();
        let mut last = PhaseError::Missing("no pod of etcd says where it is reached".to_owned());
        for address in known_members(client).await? {
            let etcd = EtcdMembers::at(address, &pki).map_err(missing)?;
            match etcd.ensure(&self.settings.node_name, peer).await {
                Ok(members) => return Ok((etcd, members)),
                Err(error) => last = missing(error),
            }
        }
        Err(last)
    }
}

fn missing(error: crate::etcd_members::EtcdMembersError) -> PhaseError {
    PhaseError::Missing(error.to_string())
}

/// Where the members that are there are reached, as their pods say.
async fn known_members(client: &Client) -> Result<Vec<SocketAddr>, PhaseError> {
    let selector = ListParams::default().labels("component=etcd,tier=control-plane");
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system").list(&selector).await;
    let pods = pods.map_err(|source| failed("Pod", "etcd", source))?;
    let addresses = pods.items.iter().filter_map(|pod| pod.metadata.annotations.as_ref()?.get(ETCD_ENDPOINT));
    Ok(addresses.filter_map(|url| url.trim_start_matches("https://").parse().ok()).collect())
}

/// Asks for the new member's vote until it has caught up with the others.
async fn promote(etcd: &EtcdMembers, peer: &str) -> Result<(), PhaseError> {
    let deadline = Instant::now() + HEALTH_PATIENCE;
    loop {
        let tried = async {
            let members = etcd.list().await?;
            match members.iter().find(|known| known.member.peer_url == peer && known.is_learner) {
                Some(known) => etcd.promote(&known.id).await,
                None => Ok(()),
            }
        };
        match tried.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(PhaseError::Missing(format!("the new etcd member has not caught up: {error}")));
            }
            Err(error) => tracing::debug!(%error, "the new etcd member has no vote yet"),
        }
        tokio::time::sleep(PROMOTE_PAUSE).await;
    }
}
