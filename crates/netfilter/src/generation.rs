//! The generation number of the kernel's packet rules: it moves with every transaction of anybody in this network
//! namespace, so that one small question tells whether anything was changed behind our back.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// A way to ask again and again. Closing it waits until the kernel has freed what the latest transactions removed.
#[derive(Debug)]
pub struct RulesetGeneration {
    socket: OwnedFd,
}

impl RulesetGeneration {
    /// Opens it in the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        let socket: OwnedFd =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(500))?;
        Ok(Self { socket })
    }

    /// The current generation.
    pub fn get(&self) -> io::Result<u32> {
        sendto(self.socket.as_raw_fd(), &question(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0_u8; 4096];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        parse(&answer[..length]).ok_or_else(|| io::Error::other("the kernel did not tell the generation of its rules"))
    }
}

/// The current generation of the rules in the network namespace of this thread.
pub fn ruleset_generation() -> io::Result<u32> {
    RulesetGeneration::open()?.get()
}

fn question() -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + FAMILY_HEADER);
    message.extend(u32::try_from(HEADER + FAMILY_HEADER).expect("it is twenty").to_ne_bytes());
    message.extend((NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN).to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence, port, and an unspecified family in version 0.
    message.extend([0; 8 + FAMILY_HEADER]);
    message
}

fn parse(message: &[u8]) -> Option<u32> {
    let u16_at = |at: usize| Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
    if u16_at(4)? != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN {
        return None;
    }
    let mut at = HEADER + FAMILY_HEADER;
    loop {
        let (length, kind) = (usize::from(u16_at(at)?), u16_at(at + 2)?);
        if kind == NFTA_GEN_ID {
            return Some(u32::from_be_bytes(message.get(at + 4..at + 8)?.try_into().ok()?));
        }
        at += length.max(4).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; 4];
        message.extend((NFNL_SUBSYS_NFTABLES << 8 | kind).to_ne_bytes());
        message.extend([0; 10 + FAMILY_HEADER]);
        for (kind, value) in attributes {
            message.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        message
    }

    #[test]
    fn the_generation_is_found_among_the_attributes() {
        assert_eq!(parse(&answer(NFT_MSG_NEWGEN, &[(1, &[0, 0, 1, 2])])), Some(258));
        assert_eq!(parse(&answer(NFT_MSG_NEWGEN, &[(2, &[9, 9, 9, 9]), (3, b"nft\0"), (1, &[0, 0, 0, 7])])), Some(7));
        assert_eq!(parse(&answer(NFT_MSG_NEWGEN, &[(2, &[9, 9, 9, 9])])), None);
        assert_eq!(parse(&answer(2, &[(1, &[0, 0, 1, 2])])), None);
        assert_eq!(parse(&[]), None);
    }
}
