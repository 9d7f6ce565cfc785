//! A network that somebody else configured, before and after Kedge's.

use kedge_client::Informer;
use kedge_meta::ComponentState;
use kedge_network::CNI_FILE_NAME;

use crate::can_run;
use crate::machine::{Machine, connect};

const FLANNEL: &str = r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
  {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

#[test]
fn a_foreign_network_is_left_alone_and_missed_when_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = Machine::new(folder.path(), 1, "192.0.2.1");
    let mut two = Machine::new(folder.path(), 2, "192.0.2.2");
    if !can_run("a_foreign_network_is_left_alone_and_missed_when_it_goes", &one.config()) {
        return;
    }
    let switch = kedge_netns::Namespace::new();
    connect(&switch, &[&one, &two]);
    let nodes = [one.node(), two.node()];
    let net_d = one.config().cni_config_dir;
    std::fs::create_dir_all(&net_d).unwrap();
    std::fs::write(net_d.join("10-flannel.conflist"), FLANNEL).unwrap();
    let before = one.namespace.sh("ip route; ip -o link");
    one.start_network();
    one.start_mesh(Informer::fixed(nodes.clone()), |_| {});
    two.start_network();
    two.start_mesh(Informer::fixed(nodes), |_| {});
    let says = |text: &str| text.starts_with("ForeignCNIConfiguration ") && text.contains("10-flannel.conflist");
    for component in ["kedge-network", "kedge-bgp"] {
        one.wait("it is said", component, |state, text| state == ComponentState::Running && says(text));
    }
    two.wait_complaint("nobody speaks BGP there", "BGPPeersNotEstablished");
    assert_eq!(one.namespace.sh("ip route; ip -o link"), before, "nothing was made");
    assert!(!net_d.join(CNI_FILE_NAME).exists());

    std::fs::remove_file(net_d.join("10-flannel.conflist")).unwrap();
    one.wait_route("10.244.2.0/24 via 192.0.2.2 dev eth0");
    two.wait_well("both are peers");
    let list = format!("ls {}", net_d.display());
    one.wait_output(&list, CNI_FILE_NAME, true);

    std::fs::write(net_d.join("10-flannel.conflist"), FLANNEL).unwrap();
    one.wait("it is said again", "kedge-bgp", |_, text| says(text));
    one.wait_output("ip route", "10.244.2.0/24 via", false);
    one.wait_output(&list, CNI_FILE_NAME, false);
    assert!(one.namespace.sh("ip -o link").contains("cni0"), "pods that are there keep what they need");
}
