//! Removes what this crate has made, in the reverse order, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use kedge_netfilter::{Family, Nft};

use crate::config::Error;
use crate::link::{Devices, Links, Maker};
use crate::mode::VxlanConfig;
use crate::reach::REACHABILITY_FILE;
use crate::record::{Record, remove_file};
use crate::rules::TABLE;
use crate::setup::sysctls;
use crate::tunnel::remove_tunnel;

/// Removes the CNI file, host-local's addresses, rules, routes, tunnels and the bridge, and gives kernel switches their former
/// values. Pods must be gone before. Doing it again does nothing.
pub async fn teardown(state_dir: &Path) -> Result<(), Error> {
    let record = Record::load(state_dir)?;
    if let Some(file) = &record.cni_file {
        remove_file(file)?;
    }
    if let Some(folder) = &record.ipam_dir {
        match fs::remove_dir_all(folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::File { file: folder.clone(), action: "removed", source });
            }
            _ => {}
        }
    }
    let nft = Nft::default();
    for family in [Family::Ip, Family::Ip6] {
        nft.delete_table(family, TABLE).await?;
    }
    let links = Links::connect()?;
    for maker in [Maker::Node, Maker::Mesh] {
        for (_, route) in links.our_routes(maker, Devices::default()).await? {
            links.delete_route(route).await?;
        }
    }
    remove_tunnel(&links, &VxlanConfig::default().device).await?;
    if let Some(name) = &record.bridge
        && let Some(link) = links.link(name).await?.filter(|link| link.is_bridge)
    {
        links.delete_link(link.index).await?;
    }
    remove_file(&state_dir.join(REACHABILITY_FILE))?;
    sysctls(state_dir).restore()?;
    Record::remove(state_dir)
}
