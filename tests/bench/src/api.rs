//! The namespace in which a benchmark works: its paths, and how it is filled.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;

use crate::connection::{Call, Connection};
use crate::load::{self, Measure, Until};
use crate::objects::{self, Pods};
use crate::target::Target;

/// A namespace of the benchmark's own.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) target: Target,
    path: String,
    namespace: String,
}

/// Of a list, what is needed here.
#[derive(Debug, Deserialize)]
struct List {
    metadata: ListMetadata,
    items: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

/// What a list held.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) resource_version: String,
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl Workspace {
    /// Makes the namespace, and the service account that pods need where no controller makes it.
    pub(crate) async fn create(target: &Target) -> Result<Self> {
        let namespace = format!("bench-{}", std::process::id());
        let path = format!("/api/v1/namespaces/{namespace}");
        let mut connection = Connection::open(target).await?;
        let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{namespace}"}}}}"#);
        connection.send(&Call::create("/api/v1/namespaces", body.into())).await?;
        let body = Bytes::from_static(br#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#);
        connection.ensure(&Call::create(format!("{path}/serviceaccounts"), body)).await?;
        Ok(Self { target: target.clone(), path, namespace })
    }

    /// Removes what was written.
    pub(crate) async fn remove(&self) -> Result<()> {
        let mut connection = Connection::open(&self.target).await?;
        for resource in ["pods", "configmaps"] {
            connection.send(&Call::delete(self.collection(resource))).await?;
        }
        connection.send(&Call::delete(format!("/api/v1/namespaces/{}", self.namespace))).await?;
        let binding = format!("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{}", self.namespace);
        connection.send(&Call::delete(binding)).await?;
        Ok(())
    }

    /// Path of a collection in the namespace.
    pub(crate) fn collection(&self, resource: &str) -> String {
        format!("{}/{resource}", self.path)
    }

    /// Path of a numbered object.
    pub(crate) fn object(&self, resource: &str, number: u64) -> String {
        format!("{}/{resource}/{}", self.path, objects::name(number))
    }

    pub(crate) async fn create_config_maps(&self, clients: u64, count: u64) -> Result<Measure> {
        let path = self.collection("configmaps");
        let call = move |number| Call::create(path.clone(), objects::config_map(number));
        load::run(&self.target, clients, Until::Requests(count), call).await
    }

    pub(crate) async fn create_pods(&self, clients: u64, count: u64) -> Result<Measure> {
        self.create_pods_until(clients, count, Until::Requests(count)).await
    }

    pub(crate) async fn create_pods_until(&self, clients: u64, count: u64, until: Until) -> Result<Measure> {
        let (path, pods) = (self.collection("pods"), Pods::new(count));
        let call = move |number| Call::create(path.clone(), pods.body(number));
        load::run(&self.target, clients, until, call).await
    }

    pub(crate) async fn create_leases(&self, clients: u64, count: u64) -> Result<Measure> {
        let path = self.leases();
        let call = move |number| Call::create(path.clone(), objects::lease(number));
        load::run(&self.target, clients, Until::Requests(count), call).await
    }

    /// Path of the namespace's leases.
    pub(crate) fn leases(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    /// Lets some users, as whom requests are made, do everything.
    pub(crate) async fn allow(&self, users: &[&str]) -> Result<()> {
        let mut connection = Connection::open(&self.target).await?;
        let subject =
            |user: &&str| serde_json::json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user});
        let subjects: Vec<_> = users.iter().map(subject).collect();
        let body = serde_json::json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": self.namespace}, "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        connection.ensure(&Call::create(path, body.to_string().into())).await
    }

    /// Lists pods once; fails unless as many came as were expected.
    pub(crate) async fn list_pods(&self, query: &str, expected: u64) -> Result<Listed> {
        let listed = self.list("pods", query).await?;
        ensure!(listed.items as u64 == expected, "{} pods{query} were listed instead of {expected}", listed.items);
        Ok(listed)
    }

    /// Lists once.
    pub(crate) async fn list(&self, resource: &str, query: &str) -> Result<Listed> {
        let mut connection = Connection::open(&self.target).await?;
        let path = format!("{}{query}", self.collection(resource));
        let bytes = connection.read(&Call::get(&path)).await?;
        let list: List = serde_json::from_slice(&bytes).with_context(|| format!("{path} answered with no list"))?;
        let resource_version = list.metadata.resource_version;
        Ok(Listed { resource_version, items: list.items.len(), bytes: bytes.len() })
    }
}
