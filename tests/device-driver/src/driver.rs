//! A driver of dynamic resource allocation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kedge_csi::v1::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use kedge_devices::v1::{
    NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse, PreparedDevice,
};
use parking_lot::Mutex;
use serde_json::json;
use tonic::Status;

use crate::serve::{Server, method, unary};

/// Where runtimes look for CDI specs.
const CDI: &str = "/var/run/cdi";

struct Shared {
    name: String,
    endpoint: PathBuf,
    calls: Mutex<Vec<String>>,
    /// What preparing answers instead of working.
    problem: Mutex<Option<String>>,
    specs: Mutex<Vec<PathBuf>>,
}

/// A running driver. Its CDI specs go with it.
pub struct TestDriver {
    shared: Arc<Shared>,
    _server: Server,
}

impl TestDriver {
    /// Serves below `state` and registers in the kubelet's root directory.
    ///
    /// # Panics
    ///
    /// Where the sockets cannot be made.
    pub fn start(name: &str, state: &Path, kubelet_root: &Path) -> Self {
        let registry = kubelet_root.join("plugins_registry");
        for directory in [state, &registry] {
            std::fs::create_dir_all(directory).expect("a directory of the test can be made");
        }
        let sockets = vec![state.join("dra.sock"), registry.join(format!("{name}-reg.sock"))];
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            endpoint: sockets[0].clone(),
            calls: Mutex::default(),
            problem: Mutex::default(),
            specs: Mutex::default(),
        });
        let known = shared.clone();
        let route = Arc::new(move |request: hyper::Request<tonic::body::Body>| {
            let shared = known.clone();
            match method(&request).as_str() {
                "GetInfo" => unary(request, move |_: InfoRequest| Ok(shared.info())),
                "NotifyRegistrationStatus" => unary(request, move |status: RegistrationStatus| {
                    shared.calls.lock().push(format!("registered {}", status.plugin_registered));
                    Ok(RegistrationStatusResponse {})
                }),
                "NodePrepareResources" => unary(request, move |asked| shared.prepare(asked)),
                "NodeUnprepareResources" => unary(request, move |asked| shared.unprepare(asked)),
                other => {
                    let text = other.to_owned();
                    Box::pin(async move { Status::unimplemented(text).into_http() })
                }
            }
        });
        Self { shared, _server: Server::start(sockets, route, async {}) }
    }

    /// From now on, claims can't be prepared and this is why; `None` ends that.
    pub fn fail(&self, problem: Option<&str>) {
        *self.shared.problem.lock() = problem.map(str::to_owned);
    }

    /// What was asked so far: `prepare <claim>`, `unprepare <claim>`, `registered <whether>`.
    pub fn calls(&self) -> Vec<String> {
        self.shared.calls.lock().clone()
    }
}

impl Drop for TestDriver {
    fn drop(&mut self) {
        for spec in self.shared.specs.lock().drain(..) {
            let _ = std::fs::remove_file(spec);
        }
    }
}

impl Shared {
    fn info(&self) -> PluginInfo {
        PluginInfo {
            r#type: "DRAPlugin".to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.to_string_lossy().into_owned(),
            supported_versions: vec!["v1.DRAPlugin".to_owned()],
        }
    }

    fn prepare(&self, asked: NodePrepareResourcesRequest) -> Result<NodePrepareResourcesResponse, Status> {
        let mut answer = NodePrepareResourcesResponse::default();
        for claim in asked.claims {
            self.calls.lock().push(format!("prepare {}", claim.name));
            let outcome = match self.problem.lock().clone() {
                Some(error) => NodePrepareResourceResponse { devices: Vec::new(), error },
                None => {
                    let cdi =
                        self.describe(&claim.name, &claim.uid).map_err(|error| Status::internal(error.to_string()))?;
                    let device = PreparedDevice {
                        pool_name: "pool".to_owned(),
                        device_name: "device".to_owned(),
                        cdi_device_ids: vec![cdi],
                        ..PreparedDevice::default()
                    };
                    NodePrepareResourceResponse { devices: vec![device], error: String::new() }
                }
            };
            answer.claims.insert(claim.uid, outcome);
        }
        Ok(answer)
    }

    /// Writes what a claim means for a container: the name that runtimes know it by.
    fn describe(&self, claim: &str, uid: &str) -> std::io::Result<String> {
        let kind = format!("{}/claim", self.name);
        let edits = json!({"env": [format!("CLAIM={claim}")],
            "deviceNodes": [{"path": "/dev/kedge-claim", "hostPath": "/dev/null", "permissions": "rw"}]});
        let spec = json!({"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": uid, "containerEdits": edits}]});
        std::fs::create_dir_all(CDI)?;
        let path = Path::new(CDI).join(format!("{}-{uid}.json", self.name));
        std::fs::write(&path, spec.to_string())?;
        self.specs.lock().push(path);
        Ok(format!("{kind}={uid}"))
    }

    fn unprepare(&self, asked: NodeUnprepareResourcesRequest) -> Result<NodeUnprepareResourcesResponse, Status> {
        let mut answer = NodeUnprepareResourcesResponse::default();
        for claim in asked.claims {
            self.calls.lock().push(format!("unprepare {}", claim.name));
            let _ = std::fs::remove_file(Path::new(CDI).join(format!("{}-{}.json", self.name, claim.uid)));
            answer.claims.insert(claim.uid, NodeUnprepareResourceResponse::default());
        }
        Ok(answer)
    }
}
