//! The authorizer: the privileged group first, then the modes that were asked for, in their order.

use std::str::FromStr;
use std::sync::Arc;

use kedge_meta::UserInfo;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attributes::{Attributes, Decision};
use crate::node::NodeIndex;
use crate::rbac::RbacIndex;
use crate::rule::PolicyRule;

/// A way of deciding, as `--authorization-mode` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorizationMode {
    /// Nodes may do what their pods need.
    Node,
    /// Roles and bindings.
    #[serde(rename = "RBAC")]
    Rbac,
    /// Everybody may do everything.
    AlwaysAllow,
    /// Nobody may do anything.
    AlwaysDeny,
}

impl AuthorizationMode {
    /// The modes that are on where nobody says.
    pub const USUAL: [Self; 2] = [Self::Node, Self::Rbac];
}

impl FromStr for AuthorizationMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Node" => Ok(Self::Node),
            "RBAC" => Ok(Self::Rbac),
            "AlwaysAllow" => Ok(Self::AlwaysAllow),
            "AlwaysDeny" => Ok(Self::AlwaysDeny),
            "ABAC" | "Webhook" => Err(format!("the mode {text} is not supported")),
            _ => Err(format!("authorization-mode \"{text}\" is not a valid mode")),
        }
    }
}

/// Decides who may do what. Cheap to clone; all clones share one state.
#[derive(Clone)]
pub struct Authorizer {
    modes: Arc<[AuthorizationMode]>,
    state: Arc<RwLock<State>>,
}

struct State {
    rbac: RbacIndex,
    nodes: NodeIndex,
}

impl Default for Authorizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Authorizer {
    /// Knows no roles yet: only `system:masters` may do anything.
    pub fn new() -> Self {
        Self::with_modes(&AuthorizationMode::USUAL)
    }

    /// The same with other modes than the usual ones.
    pub fn with_modes(modes: &[AuthorizationMode]) -> Self {
        Self {
            modes: modes.into(),
            state: Arc::new(RwLock::new(State { rbac: RbacIndex::default(), nodes: NodeIndex::new() })),
        }
    }

    /// Decides about a request.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.groups.iter().any(|group| group == "system:masters") {
            return Decision::Allow(String::new());
        }
        let state = self.state.read();
        let mut said = Decision::NoOpinion(String::new());
        for mode in self.modes.iter() {
            let decision = match mode {
                AuthorizationMode::Node => state.nodes.decide(attributes),
                AuthorizationMode::Rbac => match state.rbac.allows(attributes) {
                    Some(reason) => Decision::Allow(reason),
                    None => continue,
                },
                AuthorizationMode::AlwaysAllow => Decision::Allow(String::new()),
                AuthorizationMode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
            };
            match decision {
                Decision::NoOpinion(_) => said = decision,
                // What one mode forbids is forbidden where none after it allows it: nodes ask RBAC too.
                Decision::Deny(_) => said = decision,
                Decision::Allow(_) => return decision,
            }
        }
        said
    }

    /// Takes in a committed change of `roles`, `clusterroles`, `rolebindings`, `clusterrolebindings`, or of what belongs to
    /// nodes: `pods`, `persistentvolumes`, `volumeattachments`, `resourceslices`; `None` is a deletion. Other resources are
    /// ignored.
    pub fn observe(&self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        match resource {
            "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" => {
                self.state.write().rbac.observe(resource, namespace, name, object);
            }
            _ if NodeIndex::follows(resource) => {
                self.state.write().nodes.observe(resource, namespace, name, object);
            }
            _ => {}
        }
    }

    /// The rules of a user in a namespace: those about resources, and those about paths.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<PolicyRule>) {
        let mut rules = self.state.read().rbac.rules_for(user, namespace);
        if user.groups.iter().any(|group| group == "system:masters") {
            rules.extend(everything());
        }
        rules.into_iter().partition(|rule| rule.non_resource_urls.is_empty())
    }

    /// Whether a user already has all that `rules` would grant in a namespace; otherwise what is missing.
    pub fn covers(&self, user: &UserInfo, namespace: &str, rules: &[PolicyRule]) -> Result<(), Vec<PolicyRule>> {
        let (mut owned, paths) = self.rules_for(user, namespace);
        owned.extend(paths);
        let atoms = rules.iter().flat_map(PolicyRule::atoms);
        let missing: Vec<PolicyRule> = atoms.filter(|atom| !owned.iter().any(|rule| rule.covers(atom))).collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::ResourceAttributes;
    use crate::bootstrap::bootstrap_policy;
    use serde_json::json;

    fn bootstrapped() -> Authorizer {
        let authorizer = Authorizer::new();
        for object in bootstrap_policy() {
            let resource = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            authorizer.observe(&resource, namespace, object["metadata"]["name"].as_str().unwrap(), Some(&object));
        }
        authorizer
    }

    fn asks(authorizer: &Authorizer, user: &UserInfo, request: &str) -> bool {
        let words: Vec<&str> = request.split(' ').collect();
        if words[1].starts_with('/') {
            return authorizer
                .authorize(&Attributes { user, verb: words[0], resource: None, path: words[1] })
                .is_allowed();
        }
        // verb group/resource[:subresource] namespace name
        let (group, rest) = words[1].split_once('/').unwrap();
        let group = if group == "core" { "" } else { group };
        let (resource, subresource) = rest.split_once(':').unwrap_or((rest, ""));
        let namespace = words.get(2).copied().unwrap_or_default();
        let name = words.get(3).copied().unwrap_or_default();
        let resource = ResourceAttributes {
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            ..ResourceAttributes::default()
        };
        authorizer.authorize(&Attributes { user, verb: words[0], resource: Some(resource), path: "" }).is_allowed()
    }

    #[test]
    fn modes_are_asked_in_their_order() {
        let jane = UserInfo::authenticated("jane", []);
        let check = |modes: &[AuthorizationMode], allowed: bool| {
            let authorizer = Authorizer::with_modes(modes);
            assert_eq!(asks(&authorizer, &jane, "list core/secrets"), allowed, "{modes:?}");
        };
        check(&AuthorizationMode::USUAL, false);
        check(&[AuthorizationMode::AlwaysAllow], true);
        check(&[AuthorizationMode::AlwaysDeny], false);
        assert_eq!("RBAC".parse(), Ok(AuthorizationMode::Rbac));
        assert!("Webhook".parse::<AuthorizationMode>().unwrap_err().contains("not supported"));
    }

    #[test]
    fn bootstrap_users_may_do_their_work_and_no_more() {
        let authorizer = bootstrapped();
        for (user, groups, request, allowed) in [
            ("admin", &["system:masters"][..], "delete core/nodes", true),
            ("admin", &["system:masters"], "delete apps/deployments default web", true),
            ("admin", &["kubeadm:cluster-admins"], "list core/secrets", false),
            ("jane", &[], "list core/pods default", false),
            ("jane", &[], "get /version", true),
            ("jane", &[], "create authorization.k8s.io/selfsubjectaccessreviews", true),
            ("system:kube-scheduler", &[], "create core/pods:binding default web", true),
            ("system:kube-scheduler", &[], "list core/secrets default", false),
            ("system:kube-controller-manager", &[], "list core/secrets", true),
            ("system:serviceaccount:kube-system:deployment-controller", &[], "create apps/replicasets default", true),
            ("system:serviceaccount:kube-system:replicaset-controller", &[], "create core/pods default", true),
            ("system:serviceaccount:kube-system:replicaset-controller", &[], "create apps/replicasets default", false),
            ("system:kube-proxy", &[], "watch discovery.k8s.io/endpointslices", true),
            // What upstream's own binaries do first.
            ("system:kube-scheduler", &[], "get core/configmaps kube-system extension-apiserver-authentication", true),
            ("system:kube-scheduler", &[], "update coordination.k8s.io/leases kube-system kube-scheduler", true),
            ("system:serviceaccount:kube-system:kube-dns", &[], "list core/endpoints", true),
            ("system:serviceaccount:kube-system:service-ca-cert-publisher", &[], "create core/configmaps d", true),
            // Asked by upstream's kubelet about the API server that comes to it.
            ("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"], "create core/nodes:proxy", true),
            ("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"], "get core/nodes:proxy", true),
            ("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"], "list core/pods default", false),
        ] {
            let user = UserInfo::authenticated(user, groups.iter().copied());
            assert_eq!(asks(&authorizer, &user, request), allowed, "{} {groups:?} {request}", user.username);
        }
        assert!(asks(&authorizer, &UserInfo::anonymous(), "get /livez"));
        assert!(!asks(&authorizer, &UserInfo::anonymous(), "get /metrics"));
    }

    #[test]
    fn a_node_reads_secrets_of_its_pods_volumes() {
        let authorizer = bootstrapped();
        let node = UserInfo::authenticated("system:node:n1", ["system:nodes"]);
        let volume = json!({"spec": {"claimRef": {"namespace": "d", "name": "c"}, "csi": {
            "nodeStageSecretRef": {"namespace": "storage", "name": "stage"},
            "controllerPublishSecretRef": {"namespace": "storage", "name": "attach"}}}});
        let pod = json!({"spec": {"nodeName": "n1", "volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}});
        authorizer.observe("persistentvolumes", "", "pv", Some(&volume));
        assert!(!asks(&authorizer, &node, "get core/secrets storage stage"));
        authorizer.observe("pods", "d", "p", Some(&pod));
        assert!(asks(&authorizer, &node, "get core/secrets storage stage"));
        assert!(!asks(&authorizer, &node, "get core/secrets storage attach"), "that is the controllers'");
        authorizer.observe("persistentvolumes", "", "pv", None);
        assert!(!asks(&authorizer, &node, "get core/secrets storage stage"));
    }

    #[test]
    fn a_node_reads_what_its_pods_refer_to() {
        let authorizer = bootstrapped();
        let node = UserInfo::authenticated("system:node:n1", ["system:nodes"]);
        let pod = json!({"spec": {"nodeName": "n1", "serviceAccountName": "web",
            "volumes": [{"secret": {"secretName": "tls"}}, {"projected": {"sources": [{"configMap": {"name": "ca"}}]}}]}});
        let requests = [
            "get core/secrets d tls",
            "watch core/configmaps d ca",
            "create core/serviceaccounts:token d web",
            "get core/serviceaccounts d web",
        ];
        for request in requests {
            assert!(!asks(&authorizer, &node, request), "{request} before");
        }
        authorizer.observe("pods", "d", "web", Some(&pod));
        for request in requests {
            assert!(asks(&authorizer, &node, request), "{request} while the pod is there");
        }
        assert!(!asks(&authorizer, &node, "get core/secrets d other"));
        assert!(!asks(&authorizer, &node, "get core/serviceaccounts d other"));
        assert!(!asks(&authorizer, &node, "list core/serviceaccounts d"));
        assert!(!asks(&authorizer, &node, "update core/secrets d tls"));
        assert!(asks(&authorizer, &node, "update coordination.k8s.io/leases kube-node-lease n1"));
        assert!(!asks(&authorizer, &node, "update coordination.k8s.io/leases kube-node-lease n2"));
        assert!(asks(&authorizer, &node, "patch core/pods:status d web"));
        authorizer.observe("pods", "d", "web", None);
        assert!(!asks(&authorizer, &node, "get core/secrets d tls"), "after the pod is gone");
    }

    #[test]
    fn upstreams_components_may_what_they_ask_for() {
        let authorizer = bootstrapped();
        let account = |name: &str| {
            UserInfo::authenticated(&format!("system:serviceaccount:kube-system:{name}"), ["system:serviceaccounts"])
        };
        let scheduler = UserInfo::authenticated("system:kube-scheduler", []);
        let monitoring = UserInfo::authenticated("prometheus", ["system:monitoring"]);
        // A claim is made for a pod that asks for devices by the name of a resource, and the pod owns it.
        let requests = [
            (&scheduler, "create resource.k8s.io/resourceclaims d claim"),
            (&scheduler, "delete resource.k8s.io/resourceclaims d claim"),
            (&scheduler, "update core/pods:finalizers d web"),
            (&scheduler, "update resource.k8s.io/resourceclaims:binding d claim"),
            (&account("resource-claim-controller"), "patch resource.k8s.io/resourceclaims:binding d claim"),
            (&account("pvc-protection-controller"), "update core/persistentvolumeclaims:status d claim"),
            (&monitoring, "get core/nodes:metrics n1"),
        ];
        for (user, request) in requests {
            assert!(asks(&authorizer, user, request), "{} {request}", user.username);
        }
        assert!(!asks(&authorizer, &scheduler, "delete core/pods:finalizers d web"));
        assert!(!asks(&authorizer, &monitoring, "get core/nodes:proxy n1"));
    }

    #[test]
    fn who_sees_and_edits_a_namespace_does_so_with_events_of_either_group() {
        let authorizer = bootstrapped();
        for (name, role) in [("vera", "view"), ("ed", "edit")] {
            let subjects = json!([{"kind": "User", "name": name}]);
            let binding = json!({"subjects": subjects, "roleRef": {"kind": "ClusterRole", "name": role}});
            authorizer.observe("rolebindings", "d", role, Some(&binding));
        }
        let [viewer, editor] = ["vera", "ed"].map(|name| UserInfo::authenticated(name, []));
        for group in ["core", "events.k8s.io"] {
            assert!(asks(&authorizer, &viewer, &format!("watch {group}/events d")), "{group}");
            assert!(!asks(&authorizer, &viewer, &format!("delete {group}/events d web.1")), "{group}");
            assert!(asks(&authorizer, &editor, &format!("delete {group}/events d web.1")), "{group}");
        }
    }

    #[test]
    fn a_node_reads_itself_and_its_pods_alone() {
        let authorizer = bootstrapped();
        let node = UserInfo::authenticated("system:node:n1", ["system:nodes"]);
        for (name, on) in [("own", "n1"), ("other", "n2")] {
            authorizer.observe("pods", "d", name, Some(&json!({"spec": {"nodeName": on}})));
        }
        for (request, allowed) in [
            ("get core/pods d own", true),
            ("watch core/pods d own", true),
            ("get core/pods d other", false),
            ("get core/pods d unknown", false),
            ("create core/pods d", true),
            ("get core/nodes  n1", true),
            ("watch core/nodes  n1", true),
            ("get core/nodes  n2", false),
            ("patch core/nodes:status  n1", true),
        ] {
            assert_eq!(asks(&authorizer, &node, request), allowed, "{request}");
        }
        let check = |verb: &str, group: &str, resource: &str, fields: &str, why: &str| {
            let fields = kedge_meta::FieldSelector::parse(fields).unwrap();
            let resource =
                ResourceAttributes { group, resource, fields: Some(&fields), ..ResourceAttributes::default() };
            let said = authorizer.authorize(&Attributes { user: &node, verb, resource: Some(resource), path: "" });
            assert_eq!((said.is_allowed(), said.reason()), (why.is_empty(), why), "{verb} {fields:?}");
        };
        let pods = "can only list/watch pods with spec.nodeName field selector";
        check("list", "", "pods", "spec.nodeName=n1", "");
        check("watch", "", "pods", "status.phase!=Failed,spec.nodeName=n1", "");
        check("list", "", "pods", "spec.nodeName=n2", pods);
        check("list", "", "pods", "spec.nodeName!=n1", pods);
        check("list", "", "pods", "", pods);
        check("list", "", "nodes", "", "node 'n1' cannot read all nodes, only its own Node object");
        let slices = "can only list/watch/deletecollection resourceslices with nodeName field selector";
        check("deletecollection", "resource.k8s.io", "resourceslices", "spec.nodeName=n1", "");
        check("list", "resource.k8s.io", "resourceslices", "", slices);
    }

    #[test]
    fn what_is_a_nodes_own_is_for_it_alone() {
        let authorizer = bootstrapped();
        let node = UserInfo::authenticated("system:node:n1", ["system:nodes"]);
        let claims = json!({"spec": {"nodeName": "n1", "resourceClaims": [{"name": "a", "resourceClaimName": "gpu"}],
            "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}});
        let own = json!({"spec": {"nodeName": "n1"}});
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "n1", "volumes": [{"secret": {"secretName": "stolen"}}]}});
        authorizer.observe("pods", "d", "web", Some(&claims));
        authorizer.observe("pods", "d", "mirror", Some(&mirror));
        authorizer.observe("volumeattachments", "", "va", Some(&own));
        authorizer.observe("resourceslices", "", "slice", Some(&own));
        authorizer.observe("resourceslices", "", "network", Some(&json!({"spec": {"allNodes": true}})));
        for (request, allowed) in [
            ("get resource.k8s.io/resourceclaims d gpu", true),
            ("get resource.k8s.io/resourceclaims d other", false),
            ("list resource.k8s.io/resourceclaims d", false),
            ("get resource.k8s.io/resourceclaims:status d gpu", false),
            ("get storage.k8s.io/volumeattachments  va", true),
            ("get storage.k8s.io/volumeattachments  other", false),
            ("delete storage.k8s.io/volumeattachments  va", false),
            ("create resource.k8s.io/resourceslices", true),
            ("patch resource.k8s.io/resourceslices  slice", true),
            ("get resource.k8s.io/resourceslices  network", false),
            ("delete resource.k8s.io/resourceslices  other", false),
            ("patch core/persistentvolumeclaims:status d data", true),
            ("patch core/persistentvolumeclaims:status d other", false),
            ("get core/persistentvolumeclaims:status d data", false),
            ("patch core/persistentvolumeclaims d data", false),
            ("get core/secrets d stolen", false),
            ("get core/pods d mirror", true),
            ("create core/pods:eviction d web", true),
            ("update core/pods:resize d web", false),
            ("update core/pods:ephemeralcontainers d web", false),
            ("update core/pods d web", false),
            ("delete core/nodes  n1", false),
            ("list coordination.k8s.io/leases kube-node-lease", false),
            ("get coordination.k8s.io/leases kube-system n1", false),
            ("get storage.k8s.io/csinodes  n1", true),
            ("get storage.k8s.io/csinodes  n2", false),
            ("create certificates.k8s.io/podcertificaterequests d", false),
        ] {
            assert_eq!(asks(&authorizer, &node, request), allowed, "{request}");
        }
        for (resource, name) in [("volumeattachments", "va"), ("resourceslices", "slice")] {
            authorizer.observe(resource, "", name, None);
        }
        assert!(!asks(&authorizer, &node, "get storage.k8s.io/volumeattachments  va"));
        assert!(!asks(&authorizer, &node, "get resource.k8s.io/resourceslices  slice"));
    }

    #[test]
    fn nobody_grants_what_they_do_not_have() {
        let authorizer = bootstrapped();
        let role = json!({"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]});
        let binding = json!({"subjects": [{"kind": "User", "name": "jane"}], "roleRef": {"kind": "Role", "name": "r"}});
        authorizer.observe("rolebindings", "d", "b", Some(&binding));
        authorizer.observe("roles", "d", "r", Some(&role));
        let jane = UserInfo::authenticated("jane", []);
        assert!(asks(&authorizer, &jane, "list core/pods d"));
        assert!(!asks(&authorizer, &jane, "list core/pods other"));
        let wanted = |verbs: &[&str]| PolicyRule {
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            api_groups: vec![String::new()],
            resources: vec!["pods".to_owned()],
            ..PolicyRule::default()
        };
        assert_eq!(authorizer.covers(&jane, "d", &[wanted(&["get"])]), Ok(()));
        let missing = authorizer.covers(&jane, "d", &[wanted(&["get", "delete"])]).unwrap_err();
        assert_eq!(missing, [wanted(&["delete"])]);
    }

    #[test]
    fn refusals_read_as_upstream() {
        let user = UserInfo::authenticated("jane", []);
        let resource = ResourceAttributes { resource: "pods", namespace: "d", ..ResourceAttributes::default() };
        let attributes = Attributes { user: &user, verb: "list", resource: Some(resource), path: "" };
        assert_eq!(
            attributes.denial_text(),
            "User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"d\""
        );
    }
}
