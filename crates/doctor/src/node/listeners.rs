//! Sockets of this machine that listen, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use kedge_diagnosis::Fact;

use crate::node::reading::Reading;

const LISTENING: &str = "0A";
/// A machine has fewer that matter.
const MOST: usize = 500;

/// What listens, as evidence and by address.
pub(super) fn read(proc: &Path) -> (Reading, BTreeSet<SocketAddr>) {
    let mut reading = Reading::default();
    let mut inodes: BTreeMap<SocketAddr, u64> = BTreeMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        match std::fs::read_to_string(proc.join(table)) {
            Ok(text) => inodes.extend(text.lines().skip(1).filter_map(listener)),
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => reading.miss("listeners", error),
        }
    }
    let owners = owners(proc, &inodes.values().copied().collect());
    for (address, inode) in inodes.iter().take(MOST) {
        let process = owners.get(inode).cloned();
        reading.add("ss -ltnp", Fact::Listener { address: address.to_string(), process });
    }
    (reading, inodes.into_keys().collect())
}

/// The address and the inode of a line that tells of a socket that listens.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENING {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(address_of(address)?, port), inode.parse().ok()?))
}

/// Words of four bytes in the machine's order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<u32>> =
        (0..hex.len() / 8).map(|at| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()).collect();
    let bytes: Vec<u8> = words?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

/// Names of the processes that hold sockets.
fn owners(proc: &Path, wanted: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    for process in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        if found.len() == wanted.len() {
            break;
        }
        let path = process.path();
        // What is not ours to see has no name; that is said of the socket.
        let Ok(open) = std::fs::read_dir(path.join("fd")) else { continue };
        for link in open.flatten() {
            let Ok(target) = std::fs::read_link(link.path()) else { continue };
            let inode =
                target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| wanted.contains(inode)) {
                let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
                let pid = process.file_name().to_string_lossy().into_owned();
                found.insert(inode, format!("{name} ({pid})"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let line = "   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        let little = cfg!(target_endian = "little");
        let expected = "127.0.0.1:6443".parse().expect("an address");
        assert!(!little || listener(line) == Some((expected, 4711)));
        let six = "   0: 00000000000000000000000000000000:280A 0:0 0A 0:0 0:0 0 0 0 7 1";
        assert_eq!(listener(six), Some(("[::]:10250".parse().expect("an address"), 7)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
    }

    #[test]
    fn the_holder_of_a_socket_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("it listens");
        let address = socket.local_addr().expect("it has one");
        let (reading, found) = read(Path::new("/proc"));
        assert!(found.contains(&address));
        let own = format!("({})", std::process::id());
        let named = reading.facts().any(|(_, fact)| {
            matches!(fact, Fact::Listener { address: known, process: Some(name) } if *known == address.to_string() && name.ends_with(&own))
        });
        assert!(named);
    }
}
