//! Devices with real pods: claims that a driver prepares, and a device plug-in.

use std::path::PathBuf;
use std::time::Duration;

use kedge_device_driver::{TestDriver, TestPlugin, pod_resources};
use kedge_e2e::{BUSYBOX, HostOptions, Node, eventually};
use serde_json::Value;

const DRIVER: &str = "devices.kedge.example";
const RESOURCE: &str = "kedge.example/widget";
/// Slices of a driver that is gone stay for thirty seconds.
const PATIENCE: Duration = Duration::from_secs(90);

const OBJECTS: &str = "apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: test}
spec: {selectors: [{cel: {expression: 'device.driver == \"devices.kedge.example\"'}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: test-node-1}
spec:
  driver: devices.kedge.example
  nodeName: node-1
  pool: {name: node-1, generation: 1, resourceSliceCount: 1}
  devices:
  - {name: small, attributes: {size: {int: 1}}, capacity: {memory: {value: 1Gi}}}
  - {name: big, attributes: {size: {int: 2}}, capacity: {memory: {value: 8Gi}}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: big}
spec:
  spec:
    devices:
      requests:
      - name: one
        exactly:
          deviceClassName: test
          selectors:
          - cel: {expression: 'device.capacity[\"devices.kedge.example\"].memory.isGreaterThan(quantity(\"4Gi\"))'}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: small}
spec: {devices: {requests: [{name: one, exactly: {deviceClassName: test}}]}}
";

fn with_claim(claim: &str) -> String {
    format!(
        "  terminationGracePeriodSeconds: 1
  resourceClaims: [{{name: device, {claim}}}]
  containers:
  - {{name: c, image: '{BUSYBOX}', command: [sh, -c, 'echo $CLAIM; ls /dev/kedge-claim; exec sleep 3600'], resources: {{claims: [{{name: device}}]}}}}
"
    )
}

fn with_widgets(count: u32, node: &str) -> String {
    format!(
        "  terminationGracePeriodSeconds: 1
{node}  containers:
  - {{name: c, image: '{BUSYBOX}', command: [sh, -c, 'echo $DEVICES; ls /dev/kedge-plugin; exec sleep 3600'], resources: {{limits: {{{RESOURCE}: {count}}}}}}}
"
    )
}

struct World {
    node: Node,
    root: PathBuf,
}

impl World {
    fn up() -> Option<Self> {
        let node = Node::up(HostOptions::default())?;
        let root = node.host.data_dir().join("kubelet");
        Some(Self { node, root })
    }

    fn driver(&self) -> TestDriver {
        let driver = TestDriver::start(DRIVER, &self.node.host.file("dra"), &self.root);
        eventually("the driver is registered", PATIENCE, || {
            let calls = driver.calls();
            if calls.contains(&"registered true".to_owned()) { Ok(()) } else { Err(format!("{calls:?}")) }
        });
        driver
    }

    fn delete(&self, pod: &str) {
        self.node.kubectl.run(&["delete", "pod", pod, "--wait=false"]);
        self.node.gone(pod);
    }

    fn claim(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("claim {name}: {what}"), PATIENCE, || {
            let seen = self.node.get("resourceclaim", name);
            if check(&seen) { Ok(seen) } else { Err(seen.to_string()) }
        })
    }

    fn has_devices(&self, line: &str) {
        eventually(&format!("the pod resources {line:?}"), PATIENCE, || {
            let seen = pod_resources(&self.root)?;
            if seen.iter().any(|seen| seen == line) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }

    fn widgets(&self, capacity: &str, allocatable: &str) {
        eventually(&format!("{capacity} widgets, {allocatable} healthy"), PATIENCE, || {
            let status = &self.node.get("node", "node-1")["status"];
            let seen = (&status["capacity"][RESOURCE], &status["allocatable"][RESOURCE]);
            if seen == (&Value::from(capacity), &Value::from(allocatable)) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }
}

fn device(claim: &Value) -> &str {
    claim["status"]["allocation"]["devices"]["results"][0]["device"].as_str().unwrap_or_default()
}

#[test]
fn devices_are_given_to_pods() {
    let Some(mut world) = World::up() else { return };
    world.node.kubectl.apply(OBJECTS);
    let driver = world.driver();
    claims_are_allocated_and_prepared(&mut world, &driver);
    let gone = driver;
    drop(gone);
    plug_ins_give_devices(&world);
    eventually("the slice of the driver that is gone is deleted", PATIENCE, || {
        let slices = world.node.kubectl.run(&["get", "resourceslices", "-o", "name"]);
        if slices.is_empty() { Ok(()) } else { Err(slices) }
    });
}

fn claims_are_allocated_and_prepared(world: &mut World, driver: &TestDriver) {
    driver.fail(Some("the device is warming up"));
    world.node.pod("first", &with_claim("resourceClaimTemplateName: big"));
    let text = "Failed to prepare dynamic resources: prepare dynamic resources: NodePrepareResources failed for ResourceClaim first-device-";
    world.node.event("first", text);
    driver.fail(None);
    let first = world.node.ready("first");
    let made = first["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().unwrap_or_default().to_owned();
    eventually("what the first container sees", PATIENCE, || {
        let seen = world.node.logs("first", None);
        if seen == format!("{made}\n/dev/kedge-claim\n") { Ok(()) } else { Err(seen) }
    });
    let claim = world.claim(&made, "reserved", |claim| claim["status"]["reservedFor"][0]["name"] == "first");
    assert_eq!(device(&claim), "big");
    assert_eq!(claim["metadata"]["finalizers"][0], "resource.kubernetes.io/delete-protection");

    world.node.pod("second", &with_claim("resourceClaimName: small"));
    world.node.ready("second");
    assert_eq!(device(&world.node.get("resourceclaim", "small")), "small");
    world.has_devices("second/c: small=device");
    world.node.pod("third", &with_claim("resourceClaimTemplateName: big"));
    world.node.event("third", "0/1 nodes are available: 1 cannot allocate all claims.");

    // What was prepared is known after a restart: it is given back to the driver, and then to the pod that waits.
    world.node.host.kill();
    world.node.host.start();
    world.delete("first");
    eventually("the first claim is given back", PATIENCE, || {
        let calls = driver.calls();
        if calls.contains(&format!("unprepare {made}")) { Ok(()) } else { Err(format!("{calls:?}")) }
    });
    world.node.ready("third");
    world.delete("third");
    world.delete("second");
    world.claim("small", "free", |claim| claim["status"]["allocation"].is_null());
}

fn plug_ins_give_devices(world: &World) {
    let plugin = TestPlugin::start(RESOURCE, &["w0", "w1", "w2"], &world.root);
    world.widgets("3", "3");
    world.node.pod("one", &with_widgets(1, ""));
    world.node.ready("one");
    eventually("what the container sees", PATIENCE, || {
        let seen = world.node.logs("one", None);
        if seen == "w2\n/dev/kedge-plugin\n" { Ok(()) } else { Err(seen) }
    });
    assert_eq!(plugin.calls(), ["allocate w2", "start w2"], "the plug-in prefers its last device");
    world.has_devices(&format!("one/c: {RESOURCE}=w2"));
    world.node.pod("three", &with_widgets(3, ""));
    world.node.event("three", &format!("Insufficient {RESOURCE}"));
    // Nobody asks the scheduler about this pod.
    world.node.pod("bound", &with_widgets(3, "  nodeName: node-1\n"));
    let refused = world.node.ended("bound", "Failed");
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    let text = format!(
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for {RESOURCE}. Requested: 3, Available: 2, which is unexpected"
    );
    assert_eq!(refused["status"]["message"], text);
    world.delete("bound");
    plugin.set_health("w0", false);
    world.widgets("3", "2");
    plugin.set_health("w0", true);
    world.widgets("3", "3");
    world.delete("one");
    world.node.ready("three");
    drop(plugin);
    world.widgets("3", "0");
    world.delete("three");
}
