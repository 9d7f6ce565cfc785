//! IP ranges in CIDR form: parsing, membership, and the addresses in them by number.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range such as `10.96.0.0/12`. Host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// The text is no CIDR range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct ParseCidrError(String);

impl Cidr {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                let shift = self.host_bits();
                shift >= 128 || number(self.base) >> shift == number(address) >> shift
            }
            _ => false,
        }
    }

    /// Whether its addresses are IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.base.is_ipv6()
    }

    /// How many addresses there are, at most 2^64.
    pub fn size(&self) -> u128 {
        1u128 << self.host_bits().min(64)
    }

    /// The address number `index` of the range; the network address is number 0.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        if index >= self.size() {
            return None;
        }
        let sum = number(self.base).checked_add(index)?;
        Some(match self.base {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(sum).ok()?)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(sum)),
        })
    }

    /// Which number an address of the range has.
    pub fn index_of(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.base))
    }

    fn host_bits(&self) -> u32 {
        let width = if self.base.is_ipv4() { 32 } else { 128 };
        width - u32::from(self.prefix)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let error = || ParseCidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix > width {
            return Err(error());
        }
        let host_bits = u32::from(width - prefix);
        let base = number(address).checked_shr(host_bits).and_then(|high| high.checked_shl(host_bits)).unwrap_or(0);
        let base = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(base as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(base)),
        };
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl TryFrom<String> for Cidr {
    type Error = ParseCidrError;

    fn try_from(text: String) -> Result<Self, ParseCidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: Cidr = "10.96.3.4/12".parse().unwrap();
        assert_eq!((range.to_string().as_str(), range.size()), ("10.96.0.0/12", 1 << 20));
        assert!(range.contains("10.111.255.255".parse().unwrap()) && !range.contains("10.112.0.0".parse().unwrap()));
        assert!(!range.contains("fd00::1".parse().unwrap()));
        assert_eq!(range.nth(1), Some("10.96.0.1".parse().unwrap()));
        assert_eq!((range.nth(1 << 20), range.index_of("10.97.0.0".parse().unwrap())), (None, Some(1 << 16)));
        let six: Cidr = "fd00::/108".parse().unwrap();
        assert_eq!((six.nth(10), six.size()), (Some("fd00::a".parse().unwrap()), 1 << 20));
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().size(), 1 << 32);
        for text in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/x"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
