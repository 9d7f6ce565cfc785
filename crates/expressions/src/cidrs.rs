//! Ranges of addresses: `cidr`, `isCIDR`, and what is asked of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cel::common::types;
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};

use crate::call::{self, Args, Outcome, failed, number, text_at, truth, value_at, value_type};
use crate::ips::{self, IpVal, ip_type};

/// A range as a value; the address may have bits beyond the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CidrVal {
    address: IpAddr,
    length: u8,
}

value_type!(TYPE: CidrVal, "net.CIDR", |one, other| one == other);

fn parse(text: &str) -> Result<CidrVal, String> {
    let wrong = |why: &str| {
        format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}")
    };
    let (address, length) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'"))?;
    let read = ips::parse(address);
    if address.contains('%') {
        return Err(wrong("IPv6 zones cannot be present in a prefix"));
    }
    let address = match read {
        Ok(address) => address,
        Err(error) if error.starts_with("IPv4-mapped") => {
            return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
        }
        Err(_) => return Err(wrong(&format!("ParseAddr({address:?}): unable to parse IP"))),
    };
    let plain = length == "0" || (!length.starts_with('0') && length.bytes().all(|digit| digit.is_ascii_digit()));
    let length = length.parse::<u8>().ok().filter(|_| plain);
    let length = length.ok_or_else(|| wrong(&format!("bad bits after slash: {:?}", text.rsplit('/').next())))?;
    if length > bits(address) {
        return Err(wrong("prefix length out of range"));
    }
    Ok(CidrVal { address, length })
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked_address(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

impl CidrVal {
    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && masked_address(address, self.length) == masked_address(self.address, self.length)
    }
}

fn own(args: &[CowVal<'_, '_>]) -> Result<CidrVal, ExecutionError> {
    value_at::<CidrVal>(args, 0, "cidr").copied()
}

fn read(args: &[CowVal<'_, '_>], index: usize) -> Result<CidrVal, ExecutionError> {
    parse(text_at(args, index, "cidr")?).map_err(|error| failed("cidr", error))
}

fn cidr<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(read(&args, 0)?))
}

fn is_cidr<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(parse(text_at(&args, 0, "isCIDR")?).is_ok())
}

fn string<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let own = own(&args)?;
    call::text(format!("{}/{}", own.address, own.length))
}

fn contains_ip<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(own(&args)?.contains(value_at::<IpVal>(&args, 1, "containsIP")?.0))
}

fn contains_ip_text<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let address = ips::parse(text_at(&args, 1, "containsIP")?).map_err(|error| failed("containsIP", error))?;
    truth(own(&args)?.contains(address))
}

fn contains(outer: CidrVal, inner: CidrVal) -> bool {
    outer.contains(inner.address) && outer.length <= inner.length
}

fn contains_cidr<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(contains(own(&args)?, *value_at::<CidrVal>(&args, 1, "containsCIDR")?))
}

fn contains_cidr_text<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(contains(own(&args)?, read(&args, 1)?))
}

fn address<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(IpVal(own(&args)?.address)))
}

fn prefix_length<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    number(own(&args)?.length.into())
}

fn masked<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let CidrVal { address, length } = own(&args)?;
    Ok(CowVal::owned(CidrVal { address: masked_address(address, length), length }))
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let (text, range) = (|| vec![types::STRING_TYPE], || vec![TYPE.to_owned()]);
    env.add_type(TYPE.to_owned())?;
    env.add_overload("cidr", "string_to_cidr", text(), cidr)?;
    env.add_overload("isCIDR", "is_cidr", text(), is_cidr)?;
    env.add_overload("string", "cidr_to_string", range(), string)?;
    let mut member = |name: &str, id: &str, args: Vec<types::Type>, function| {
        env.add_member_overload(name, id, TYPE.to_owned(), args, function)
    };
    member("containsIP", "cidr_contains_ip_string", text(), contains_ip_text)?;
    member("containsIP", "cidr_contains_ip_ip", vec![ip_type()], contains_ip)?;
    member("containsCIDR", "cidr_contains_cidr_string", text(), contains_cidr_text)?;
    member("containsCIDR", "cidr_contains_cidr", range(), contains_cidr)?;
    member("ip", "cidr_ip", Vec::new(), address)?;
    member("prefixLength", "cidr_prefix_length", Vec::new(), prefix_length)?;
    member("masked", "cidr_masked", Vec::new(), masked)
}
