//! What this node knows of its way to every other: the session that brings routes, and whether packets of pods arrive.
//! The doctor reads it: as a file of the node, and as an annotation of its Node. Pure, but for reading that file.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use kedge_bgp::SessionState;
use serde::{Deserialize, Serialize};

use crate::mode::Way;

/// The annotation of a Node that has its [`Reachability`].
pub const REACHABILITY_ANNOTATION: &str = "network.kedge.dev/reachability";
/// The file in the state directory.
pub(crate) const REACHABILITY_FILE: &str = "reachability.json";

/// All peers of one node, as it sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachability {
    /// The node that sees.
    pub node: String,
    /// Its peers, by address.
    pub peers: Vec<PeerReachability>,
}

impl Reachability {
    /// What the agent of this machine wrote last, where one did.
    pub fn read(state_dir: &Path) -> Option<Self> {
        let text = std::fs::read(state_dir.join(REACHABILITY_FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The peers whose session is wanted and not established.
    pub fn not_established(&self) -> impl Iterator<Item = IpAddr> {
        let is_up = |state: &String| state == SessionState::Established.as_str();
        let missing = self.peers.iter().filter(move |peer| peer.session.as_ref().is_some_and(|state| !is_up(state)));
        missing.map(|peer| peer.address)
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReachability {
    /// The node; absent for a peer outside of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: u32,
    /// The state of the BGP session (RFC 4271); absent where none is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Why the session is not established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_error: Option<String>,
    /// How packets for its pods leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteState>,
    /// Whether they arrive.
    pub pods: PodPath,
    /// Since when all this is so.
    pub since: Timestamp,
}

/// How packets for a node's pods leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum RouteState {
    /// As they are.
    Native {
        /// To this machine.
        gateway: IpAddr,
    },
    /// In VXLAN packets.
    Vxlan {
        /// To this node.
        node: IpAddr,
    },
}

impl From<Way> for RouteState {
    fn from(way: Way) -> Self {
        match way {
            Way::Via(gateway) => RouteState::Native { gateway },
            Way::Tunnel(node) => RouteState::Vxlan { node },
        }
    }
}

/// Whether packets between the pods of two nodes arrive, as ICMP echo between the gateways of both shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum PodPath {
    /// Nothing was found out yet.
    #[default]
    Unknown,
    /// Packets of the full size arrive, and answers too.
    Reachable,
    /// Nothing arrives from there.
    Silent,
    /// Questions arrive from there, but no answers: what we send gets lost.
    OneWay,
    /// Small packets arrive, those of the pods' full size do not.
    MtuTooSmall {
        /// The size that pods use.
        wanted: u32,
        /// The largest size that arrived.
        passes: u32,
    },
}

impl PodPath {
    /// That of a node with several paths, one for each family: what is wrong with any of them, and good where all are.
    pub(crate) fn of_all(paths: impl IntoIterator<Item = PodPath>) -> PodPath {
        let paths: Vec<PodPath> = paths.into_iter().collect();
        let broken = paths.iter().find(|path| path.is_broken()).copied();
        let is_reached = !paths.is_empty() && paths.iter().all(|path| *path == PodPath::Reachable);
        broken.unwrap_or(if is_reached { PodPath::Reachable } else { PodPath::Unknown })
    }

    /// Whether this is a reason to worry.
    pub fn is_broken(self) -> bool {
        !matches!(self, PodPath::Unknown | PodPath::Reachable)
    }

    /// The CamelCase word for it.
    pub fn reason(self) -> &'static str {
        match self {
            PodPath::MtuTooSmall { .. } => "MTUTooSmall",
            _ => "PodNetworkUnreachable",
        }
    }
}

impl fmt::Display for PodPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PodPath::Unknown => formatter.write_str("is not known yet"),
            PodPath::Reachable => formatter.write_str("is reached"),
            PodPath::Silent => formatter.write_str("does not answer (ICMP echo), and nothing arrives from it"),
            PodPath::OneWay => formatter.write_str(
                "does not answer (ICMP echo), although its packets arrive here: packets from here to it are lost",
            ),
            PodPath::MtuTooSmall { wanted, passes } => write!(
                formatter,
                "gets packets of {passes} bytes, but not of {wanted}, which pods send: something on the way has a smaller MTU"
            ),
        }
    }
}

/// Keeps the times of what did not change.
pub(crate) fn keep_times(new: &mut Reachability, old: &Reachability) {
    for peer in &mut new.peers {
        let Some(before) = old.peers.iter().find(|before| before.address == peer.address) else { continue };
        let same = PeerReachability { since: before.since, ..peer.clone() };
        if same == *before {
            peer.since = before.since;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_reached_when_all_of_its_families_are() {
        use PodPath::{OneWay, Reachable, Silent, Unknown};
        let check = |paths: &[PodPath], expected| assert_eq!(PodPath::of_all(paths.iter().copied()), expected);
        check(&[], Unknown);
        check(&[Reachable], Reachable);
        check(&[Reachable, Unknown], Unknown);
        check(&[Reachable, Silent], Silent);
        check(&[OneWay, Unknown], OneWay);
    }

    #[test]
    fn what_is_written_is_read_and_times_stay_with_what_stays() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let peer = |since, pods| PeerReachability {
            node: Some("b".to_owned()),
            address: "192.0.2.2".parse().unwrap(),
            asn: 64512,
            session: Some("Established".to_owned()),
            session_error: None,
            route: Some(Way::Tunnel("192.0.2.2".parse().unwrap()).into()),
            pods,
            since: at(since),
        };
        let old = Reachability { node: "a".to_owned(), peers: vec![peer(1, PodPath::Reachable)] };
        let text = serde_json::to_string(&old).unwrap();
        assert_eq!(serde_json::from_str::<Reachability>(&text).unwrap(), old);
        let expected = r#"{"node":"a","peers":[{"node":"b","address":"192.0.2.2","asn":64512,"session":"Established","route":{"kind":"vxlan","node":"192.0.2.2"},"pods":{"state":"reachable"},"since":"1970-01-01T00:00:01Z"}]}"#;
        assert_eq!(text, expected);
        let check = |pods, expected| {
            let mut new = Reachability { node: "a".to_owned(), peers: vec![peer(9, pods)] };
            keep_times(&mut new, &old);
            assert_eq!(new.peers[0].since, at(expected));
        };
        check(PodPath::Reachable, 1);
        check(PodPath::MtuTooSmall { wanted: 1500, passes: 1400 }, 9);
    }
}
