//! Removes entries of the kernel's connection tracking that would keep UDP packets flowing to where nobody is. TCP needs
//! none of this: its connections end by themselves.
//!
//! Runs the `conntrack` program (Debian package conntrack), one process per flow description.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::nft::find_program;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Describes UDP entries that must go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StaleFlow {
    /// Entries for an address of a Service, whichever endpoint they lead to (or to none).
    Address {
        /// The address that clients sent to.
        address: IpAddr,
        /// The port that clients sent to.
        port: u16,
    },
    /// Entries for an address of a Service that lead to one endpoint.
    AddressToEndpoint {
        /// The address that clients sent to.
        address: IpAddr,
        /// The port that clients sent to.
        port: u16,
        /// The endpoint that is gone.
        endpoint: IpAddr,
    },
    /// Entries for a node port, whichever endpoint they lead to (or to none).
    NodePort {
        /// The node port.
        port: u16,
        /// Whether the Service is an IPv6 one.
        ipv6: bool,
    },
    /// Entries for a node port that lead to one endpoint.
    NodePortToEndpoint {
        /// The node port.
        port: u16,
        /// The endpoint that is gone.
        endpoint: IpAddr,
    },
}

/// A UDP entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpFlow {
    /// The address that the client sent to.
    pub address: IpAddr,
    /// The port that the client sent to.
    pub port: u16,
    /// Who the answers come from: the same address where nothing is translated.
    pub answered_by: IpAddr,
}

/// Why entries could not be read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The program is not there.
    #[error("the program conntrack is not installed; install the Debian package conntrack")]
    Missing,
    /// The program failed.
    #[error("conntrack failed: {0}")]
    Failed(String),
    /// It did not end in time.
    #[error("conntrack did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// It could not be run.
    #[error("conntrack could not be run")]
    Io(#[from] io::Error),
}

/// The `conntrack` program.
#[derive(Debug, Clone)]
pub struct Conntrack {
    program: PathBuf,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self { program: find_program("conntrack") }
    }
}

impl Conntrack {
    /// Removes the UDP entries that match; that there are none is no error.
    pub async fn remove(&self, flow: &StaleFlow) -> Result<(), ConntrackError> {
        let output = self.call(&arguments(flow)).await?;
        let message = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || message.contains("0 flow entries have been deleted") {
            return Ok(());
        }
        Err(ConntrackError::Failed(message.trim().to_owned()))
    }

    /// All UDP entries of a family.
    pub async fn udp_flows(&self, ipv6: bool) -> Result<BTreeSet<UdpFlow>, ConntrackError> {
        let family = if ipv6 { "ipv6" } else { "ipv4" };
        let output = self.call(&["-L", "-p", "udp", "-f", family].map(str::to_owned)).await?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(ConntrackError::Failed(message.trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_flow).collect())
    }

    async fn call(&self, arguments: &[String]) -> Result<Output, ConntrackError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ConntrackError::Missing,
            _ => ConntrackError::Io(error),
        })?;
        let output = tokio::time::timeout(TIMEOUT, child.wait_with_output()).await;
        Ok(output.map_err(|_| ConntrackError::Timeout)??)
    }
}

/// Reads a line of the listing: the words of the client's direction, then those of the answers'.
fn parse_flow(line: &str) -> Option<UdpFlow> {
    let values =
        |name: &'static str| line.split_whitespace().filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='));
    Some(UdpFlow {
        address: values("dst").next()?.parse().ok()?,
        port: values("dport").next()?.parse().ok()?,
        answered_by: values("src").nth(1)?.parse().ok()?,
    })
}

fn arguments(flow: &StaleFlow) -> Vec<String> {
    let mut arguments: Vec<String> = ["-D", "-p", "udp"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    let ipv6 = match flow {
        StaleFlow::Address { address, port } => {
            option("--orig-dst", address.to_string());
            option("--dport", port.to_string());
            address.is_ipv6()
        }
        StaleFlow::AddressToEndpoint { address, port, endpoint } => {
            option("--orig-dst", address.to_string());
            option("--dport", port.to_string());
            option("--dst-nat", endpoint.to_string());
            address.is_ipv6()
        }
        StaleFlow::NodePort { port, ipv6 } => {
            option("--dport", port.to_string());
            *ipv6
        }
        StaleFlow::NodePortToEndpoint { port, endpoint } => {
            option("--dport", port.to_string());
            option("--dst-nat", endpoint.to_string());
            endpoint.is_ipv6()
        }
    };
    if ipv6 {
        option("-f", "ipv6".to_owned());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_described_in_the_programs_words() {
        let address: IpAddr = "10.96.0.10".parse().unwrap();
        let endpoint: IpAddr = "10.244.0.5".parse().unwrap();
        let check = |flow: StaleFlow, expected: &str| assert_eq!(arguments(&flow).join(" "), expected);
        check(StaleFlow::Address { address, port: 53 }, "-D -p udp --orig-dst 10.96.0.10 --dport 53");
        check(
            StaleFlow::AddressToEndpoint { address, port: 53, endpoint },
            "-D -p udp --orig-dst 10.96.0.10 --dport 53 --dst-nat 10.244.0.5",
        );
        check(StaleFlow::NodePort { port: 30053, ipv6: true }, "-D -p udp --dport 30053 -f ipv6");
        check(StaleFlow::NodePortToEndpoint { port: 30053, endpoint }, "-D -p udp --dport 30053 --dst-nat 10.244.0.5");
    }

    #[test]
    fn the_listing_is_read() {
        let line = "udp      17 27 src=10.244.0.2 dst=10.96.0.10 sport=40000 dport=53 [UNREPLIED] src=10.244.0.9 dst=10.244.0.2 \
                    sport=5353 dport=40000 mark=0 use=1";
        let flow = parse_flow(line).unwrap();
        assert_eq!(
            (flow.address.to_string(), flow.port, flow.answered_by.to_string()),
            ("10.96.0.10".into(), 53, "10.244.0.9".into())
        );
        assert_eq!(parse_flow("conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown."), None);
    }

    #[tokio::test]
    async fn a_missing_program_names_the_package() {
        let conntrack = Conntrack { program: "/nonexistent/conntrack".into() };
        let error = conntrack.remove(&StaleFlow::NodePort { port: 1, ipv6: false }).await.unwrap_err();
        assert_eq!(error.to_string(), "the program conntrack is not installed; install the Debian package conntrack");
    }
}
