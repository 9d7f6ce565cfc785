//! IP addresses: `ip`, `isIP`, `ip.isCanonical`, and what is asked of one.
//!
//! IPv4 addresses within IPv6 ones and zones are refused, as upstream refuses them.

use std::net::{IpAddr, Ipv4Addr};

use cel::common::types;
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{self, Args, Outcome, failed, number, text_at, truth, value_at, value_type};

/// An address as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpVal(pub(crate) IpAddr);

value_type!(TYPE: IpVal, "net.IP", |one, other| one == other);

/// The type of addresses.
pub(crate) fn ip_type() -> types::Type {
    TYPE.to_owned()
}

/// Reads an address.
pub(crate) fn parse(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let address = text.parse::<IpAddr>();
    let address = address.map_err(|_| {
        format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )
    })?;
    match address {
        IpAddr::V6(own) if own.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        address => Ok(address),
    }
}

fn own(args: &[CowVal<'_, '_>]) -> Result<IpAddr, ExecutionError> {
    value_at::<IpVal>(args, 0, "ip").map(|address| address.0)
}

fn ip<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let address = parse(text_at(&args, 0, "ip")?).map_err(|error| failed("ip", error))?;
    Ok(CowVal::owned(IpVal(address)))
}

fn is_ip<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(parse(text_at(&args, 0, "isIP")?).is_ok())
}

fn is_canonical<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let given = text_at(&args, 0, "ip.isCanonical")?;
    let address = parse(given).map_err(|error| failed("ip.isCanonical", error))?;
    truth(address.to_string() == given)
}

fn string<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(own(&args)?.to_string())
}

fn family<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(if own(&args)?.is_ipv4() { 4 } else { 6 })
}

fn is_unspecified<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(own(&args)?.is_unspecified())
}

fn is_loopback<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(own(&args)?.is_loopback())
}

fn is_link_local_multicast<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(match own(&args)? {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    })
}

fn link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_unicast<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(link_local_unicast(own(&args)?))
}

fn is_global_unicast<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let address = own(&args)?;
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    truth(!special && address != IpAddr::V4(Ipv4Addr::BROADCAST) && !link_local_unicast(address))
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let text = || vec![types::STRING_TYPE];
    env.add_type(TYPE.to_owned())?;
    env.add_overload("ip", "string_to_ip", text(), ip)?;
    env.add_overload("isIP", "is_ip", text(), is_ip)?;
    env.add_overload("ip.isCanonical", "ip_is_canonical", text(), is_canonical)?;
    env.add_overload("string", "ip_to_string", vec![TYPE.to_owned()], string)?;
    let mut member =
        |name: &str, id: &str, function| env.add_member_overload(name, id, TYPE.to_owned(), Vec::new(), function);
    member("family", "ip_family", family)?;
    member("isUnspecified", "ip_is_unspecified", is_unspecified)?;
    member("isLoopback", "ip_is_loopback", is_loopback)?;
    member("isLinkLocalMulticast", "ip_is_link_local_multicast", is_link_local_multicast)?;
    member("isLinkLocalUnicast", "ip_is_link_local_unicast", is_link_local_unicast)?;
    member("isGlobalUnicast", "ip_is_global_unicast", is_global_unicast)
}
