//! What each phase does on the machine: checks, certificates, manifests, the kubelet, and waiting for what it starts.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use kedge_bootstrap::ensure_cluster_admins;
use kedge_client::client_from_kubeconfig;
use kedge_pki::{KubeconfigCluster, KubeconfigUser, write_kubeconfig};
use serde_json::Value;

use super::{Init, PhaseError};
use crate::Say;
use crate::certs::{CertificateFacts, ensure_certificates};
use crate::checks::{
    CheckFacts, Role, check_runtime, external_etcd_files, external_etcd_version, mend_aloud, run_checks,
};
use crate::cluster_configuration::{Argument, Period};
use crate::health_wait::{wait_for_components, wait_for_kubelet};
use crate::host::MANIFESTS_DIR;
use crate::kubeconfigs::{KUBECONFIGS, KubeconfigFacts, ensure_kubeconfigs};
use crate::kubelet_service::{
    kubelet_configuration, start_kubelet, stop_kubelet, write_kubelet_config, write_kubelet_flags,
};
use crate::manifests::{CONTROL_PLANE, ManifestFacts, control_plane_pod, etcd_pod, write_manifest};
use crate::node_access;
use crate::patches::PatchTarget;
use crate::system_images::{SystemImages, make_system_images, runtime_socket};

impl Init<'_> {
    pub(super) async fn run_phase(&self, phase: &str, part: Option<&str>) -> Result<(), PhaseError> {
        match phase {
            "preflight" => self.preflight().await,
            "certs" => Ok(ensure_certificates(&self.certificates(), &self.layout, part, self.say)?),
            "kubeconfig" => self.kubeconfigs(part),
            "etcd" => self.etcd(),
            "control-plane" => self.control_plane(part),
            "kubelet-start" => self.kubelet_start().await,
            "wait-control-plane" => self.wait_control_plane().await,
            "upload-config" => self.upload_config(part).await,
            "upload-certs" => self.upload_certs().await,
            "mark-control-plane" => self.mark().await,
            "bootstrap-token" => self.bootstrap_token().await,
            "kubelet-finalize" => self.kubelet_finalize().await,
            "addon" => self.addons(part).await,
            _ => self.show_join_command(),
        }
    }

    /// Says what a dry run leaves out; whether this is one.
    pub(super) fn only_says(&self, what: &str) -> bool {
        if self.settings.dry_run {
            (self.say)(&format!("[dryrun] Would {what}"));
        }
        self.settings.dry_run
    }

    async fn preflight(&self) -> Result<(), PhaseError> {
        for field in &self.settings.without_effect {
            (self.say)(&format!("[config] WARNING: {field} has no effect here"));
        }
        let facts = self.check_facts().await;
        if self.settings.fix && !self.only_says("mend modules, kernel switches, swap and the hosts file") {
            mend_aloud(&facts, self.say);
        }
        let mut asked = vec![check_runtime(facts.cri_socket.as_deref()).await];
        if let Some(etcd) = &self.settings.cluster.etcd.external {
            asked.extend([external_etcd_version(etcd).await, external_etcd_files(etcd)]);
        }
        run_checks(&facts, asked, &self.settings.ignore_preflight_errors, self.say)?;
        if self.only_says("make the images of the control plane") {
            return Ok(());
        }
        (self.say)("[preflight] Making the images of the control plane from what is installed on this machine");
        make_system_images(self.cri_socket().await, self.settings.has_own_etcd()).await
    }

    async fn check_facts(&self) -> CheckFacts {
        let settings = &self.settings;
        let with = |flag, ranges: &[ipnet::IpNet]| ranges.iter().map(|range| (flag, *range)).collect::<Vec<_>>();
        let etcd = settings.cluster.local_etcd().filter(|_| settings.has_own_etcd());
        let services = with("--service-cidr", &settings.service_ranges);
        CheckFacts {
            role: Role::Init,
            node_name: settings.node_name.clone(),
            node_ip: settings.local.advertise_address,
            api_port: settings.local.bind_port,
            api_host: Some(settings.local.advertise_address.to_string()),
            cri_socket: self.cri_socket().await,
            etcd_data_dir: etcd.map(|etcd| PathBuf::from(etcd.data_dir)),
            ranges: [services, with("--pod-network-cidr", &settings.pod_ranges)].concat(),
            root: "/".into(),
        }
    }

    async fn cri_socket(&self) -> Option<String> {
        runtime_socket(self.settings.cri_socket.as_deref()).await
    }

    fn certificates(&self) -> CertificateFacts<'_> {
        CertificateFacts {
            cluster: &self.settings.cluster,
            local: self.settings.local,
            node_name: &self.settings.node_name,
            api_service_ips: self.settings.service_ips(1),
            embedded_store: self.settings.embedded_store,
        }
    }

    fn kubeconfigs(&self, part: Option<&str>) -> Result<(), PhaseError> {
        let all = KUBECONFIGS.map(|(phase, _)| phase);
        let wanted: Vec<&str> = all.into_iter().filter(|phase| part.is_none_or(|part| part == *phase)).collect();
        let facts = KubeconfigFacts {
            cluster_name: &self.settings.cluster.cluster_name,
            endpoint: self.settings.endpoint(),
            local: self.settings.local.host_port(),
            node_name: &self.settings.node_name,
            lifetime: self.settings.cluster.certificate_validity_period.as_ref().map(Period::length),
        };
        Ok(ensure_kubeconfigs(&facts, &self.layout, &wanted, self.say)?)
    }

    fn manifest_facts(&self) -> ManifestFacts {
        let images = SystemImages::of_machine(None);
        ManifestFacts {
            cluster: self.settings.cluster.clone(),
            local: self.settings.local,
            node_name: self.settings.node_name.clone(),
            image: images.kedge,
            etcd_image: images.etcd,
            embedded_store: self.settings.embedded_store,
        }
    }

    fn etcd(&self) -> Result<(), PhaseError> {
        if !self.settings.has_own_etcd() {
            return Ok(());
        }
        (self.say)(&format!("[etcd] Creating static Pod manifest for local etcd in \"{MANIFESTS_DIR}\""));
        self.put_manifest("etcd", etcd_pod(&self.manifest_facts(), &self.layout, &[]))
    }

    fn control_plane(&self, part: Option<&str>) -> Result<(), PhaseError> {
        (self.say)(&format!("[control-plane] Using manifest folder \"{MANIFESTS_DIR}\""));
        let facts = self.manifest_facts();
        for component in CONTROL_PLANE {
            if part.is_some_and(|part| component.trim_start_matches("kube-") != part) {
                continue;
            }
            (self.say)(&format!("[control-plane] Creating static Pod manifest for \"{component}\""));
            self.put_manifest(component, control_plane_pod(component, &facts, &self.layout))?;
        }
        Ok(())
    }

    fn put_manifest(&self, component: &str, pod: Value) -> Result<(), PhaseError> {
        let pod = &self.patches.apply_to_pod(component, pod, self.say)?;
        let path = format!("{MANIFESTS_DIR}/{component}.yaml");
        if self.scratch.is_some() {
            (self.say)(&format!("[dryrun] Would write file \"{path}\" with content:"));
            serde_yaml::to_string(pod).unwrap_or_default().lines().for_each(|line| (self.say)(&format!("\t{line}")));
        }
        write_manifest(&self.layout, component, pod).map_err(|source| PhaseError::File { path, source })
    }

    pub(super) fn kubelet_document(&self) -> Value {
        let dns: Vec<String> = self.settings.service_ips(10).iter().map(IpAddr::to_string).collect();
        kubelet_configuration(&self.settings.cluster, &dns, &self.settings.kubelet)
    }

    /// With the patches of this machine, which the cluster is not told.
    fn own_kubelet_document(&self, say: Say<'_>) -> Result<Value, PhaseError> {
        Ok(self.patches.apply(PatchTarget::KubeletConfiguration, self.kubelet_document(), say)?)
    }

    async fn kubelet_start(&self) -> Result<(), PhaseError> {
        if !self.settings.dry_run {
            stop_kubelet(&self.layout).await?;
            node_access::ensure_free(self.settings.api_balancer).map_err(PhaseError::Missing)?;
        }
        let flag = |name: &str, value: String| Argument { name: name.to_owned(), value };
        let mut flags = vec![
            flag("hostname-override", self.settings.node_name.clone()),
            flag("node-ip", self.settings.local.advertise_address.to_string()),
        ];
        flags.extend(self.cri_socket().await.map(|socket| flag("container-runtime-endpoint", socket)));
        let seeds = [self.settings.local.host_port(), self.settings.endpoint()];
        flags.extend(node_access::kubelet_flags(self.settings.api_balancer, &seeds));
        write_kubelet_flags(&self.layout, &flags, &self.settings.kubelet_extra_args, self.say)?;
        write_kubelet_config(&self.layout, &self.own_kubelet_document(self.say)?, self.say)?;
        if self.only_says("start the kubelet") {
            return Ok(());
        }
        Ok(start_kubelet(&self.layout, self.say).await?)
    }

    async fn wait_control_plane(&self) -> Result<(), PhaseError> {
        (self.say)(&format!(
            "[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory \
             \"{MANIFESTS_DIR}\""
        ));
        if self.only_says("wait for the kubelet and the control plane") {
            return Ok(());
        }
        let document = self.own_kubelet_document(&|_| {})?;
        let address = document["healthzBindAddress"].as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let port = document["healthzPort"].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        if let (Some(address), Some(port)) = (address, port) {
            wait_for_kubelet(SocketAddr::new(address, port), self.settings.patience, self.say).await?;
        }
        let local = self.settings.local;
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let components = [
            ("kube-apiserver", SocketAddr::new(local.advertise_address, local.bind_port), "/livez"),
            ("kube-controller-manager", loopback(10257), "/healthz"),
            ("kube-scheduler", loopback(10259), "/livez"),
        ];
        wait_for_components(&components, self.settings.patience, self.say).await?;
        self.empower_admin().await
    }

    /// The administrator's group gets its rights from the one user who has them by birth.
    async fn empower_admin(&self) -> Result<(), PhaseError> {
        let super_admin = self.layout.kubeconfig("super-admin.conf");
        if !super_admin.exists() {
            return Ok(());
        }
        let client = client_from_kubeconfig(&super_admin).await?;
        Ok(ensure_cluster_admins(&client).await?)
    }

    /// Once the kubelet keeps a certificate of its own, its kubeconfig says where.
    async fn kubelet_finalize(&self) -> Result<(), PhaseError> {
        let current = Path::new(crate::host::KUBELET_DIR).join("pki/kubelet-client-current.pem");
        if !self.layout.at(&current).exists() {
            return Ok(());
        }
        let path = self.layout.kubeconfig("kubelet.conf");
        (self.say)(&format!(
            "[kubelet-finalize] Updating \"{}\" to point to a rotatable kubelet client certificate and key",
            path.display()
        ));
        if self.settings.dry_run {
            return Ok(());
        }
        // From now on it may use other API servers too, where its own one is not well.
        let cluster = node_access::through(self.settings.api_balancer, KubeconfigCluster::read(&path)?);
        let user = KubeconfigUser::Files { certificate: current.clone(), key: current };
        let name = format!("system:node:{}", self.settings.node_name);
        write_kubeconfig(&path, &self.settings.cluster.cluster_name, &name, &cluster, &user)?;
        Ok(start_kubelet(&self.layout, &|_| {}).await?)
    }
}
