//! What to simulate, read from one line such as `nodes=5000,pods=150000,zones=3`, and what the simulation works with.

use std::str::FromStr;
use std::sync::Arc;

use kedge_client::{Client, Informers};
use kedge_meta::{Clock, ComponentStatus, Quantity};

/// More than these are not made: each names 256 pod addresses out of one range.
const MOST_NODES: u32 = 1 << 14;

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How many nodes are made.
    pub nodes: u32,
    /// How many pods are made, bound to these nodes.
    pub pods: u32,
    /// Over how many zones the nodes are spread.
    pub zones: u32,
    /// Processors of a node, a quantity.
    pub cpu: String,
    /// Memory of a node, a quantity.
    pub memory: String,
    /// How many pods a node takes.
    pub pods_per_node: u32,
    /// The same number makes the same pods.
    pub seed: u64,
    /// Whether pods that are bound to simulated nodes are started; they stay `Pending` otherwise.
    pub start_pods: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nodes: 0,
            pods: 0,
            zones: 3,
            cpu: "32".to_owned(),
            memory: "256Gi".to_owned(),
            pods_per_node: 110,
            seed: 1,
            start_pods: true,
        }
    }
}

/// What is wrong with a line that says what to simulate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseConfigError {
    /// A part that is no `KEY=VALUE` with a known key.
    #[error("{0:?} is none of nodes=, pods=, zones=, cpu=, memory=, pods-per-node=, seed=, start-pods=")]
    Key(String),
    /// A value that cannot be read.
    #[error("{key}={value} is no {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it was given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A key that is there twice.
    #[error("{0}= is there twice")]
    Twice(String),
    /// More pods than the nodes take.
    #[error("{pods} pods do not fit on {nodes} nodes with {each} each")]
    Room {
        /// The pods that were asked for.
        pods: u32,
        /// The nodes that were asked for.
        nodes: u32,
        /// Pods that a node takes.
        each: u32,
    },
}

impl FromStr for Config {
    type Err = ParseConfigError;

    fn from_str(line: &str) -> Result<Self, ParseConfigError> {
        let mut config = Self::default();
        let mut seen = Vec::new();
        for part in line.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| ParseConfigError::Key(part.to_owned()))?;
            if seen.contains(&key) {
                return Err(ParseConfigError::Twice(key.to_owned()));
            }
            seen.push(key);
            match key {
                "nodes" => config.nodes = number("nodes", value, 0, MOST_NODES)?,
                "pods" => config.pods = number("pods", value, 0, u32::MAX)?,
                "zones" => config.zones = number("zones", value, 1, MOST_NODES)?,
                "cpu" => config.cpu = amount("cpu", value)?,
                "memory" => config.memory = amount("memory", value)?,
                "pods-per-node" => config.pods_per_node = number("pods-per-node", value, 1, 10_000)?,
                "seed" => config.seed = read("seed", value, "number")?,
                "start-pods" => config.start_pods = read("start-pods", value, "true or false")?,
                _ => return Err(ParseConfigError::Key(part.to_owned())),
            }
        }
        let Config { nodes, pods, pods_per_node: each, .. } = config;
        if u64::from(pods) > u64::from(nodes) * u64::from(each) {
            return Err(ParseConfigError::Room { pods, nodes, each });
        }
        Ok(config)
    }
}

fn read<T: FromStr>(key: &'static str, value: &str, expected: &'static str) -> Result<T, ParseConfigError> {
    value.parse().map_err(|_| ParseConfigError::Value { key, value: value.to_owned(), expected })
}

fn number(key: &'static str, value: &str, least: u32, most: u32) -> Result<u32, ParseConfigError> {
    let number = read(key, value, "number")?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    let expected = if number < least { "number above zero" } else { "number that small" };
    Err(ParseConfigError::Value { key, value: value.to_owned(), expected })
}

fn amount(key: &'static str, value: &str) -> Result<String, ParseConfigError> {
    let quantity: Quantity = read(key, value, "quantity such as 4 or 16Gi")?;
    if quantity.is_negative() || quantity.millis() == 0 {
        return Err(ParseConfigError::Value { key, value: value.to_owned(), expected: "quantity above zero" });
    }
    Ok(value.to_owned())
}

/// What the simulation works with.
pub struct Deps {
    /// The API, as somebody who may write nodes, leases and pods.
    pub client: Client,
    /// The caches of this process.
    pub informers: Informers,
    /// Where it reports.
    pub status: ComponentStatus,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_simulate() {
        let config: Config =
            "nodes=5000, pods=150000,zones=7,cpu=500m,memory=1Gi,pods-per-node=40,seed=9,start-pods=false"
                .parse()
                .unwrap();
        let expected = Config {
            nodes: 5000,
            pods: 150_000,
            zones: 7,
            cpu: "500m".to_owned(),
            memory: "1Gi".to_owned(),
            pods_per_node: 40,
            seed: 9,
            start_pods: false,
        };
        assert_eq!(config, expected);
        assert_eq!("".parse::<Config>().unwrap(), Config::default());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let check = |line: &str, text: &str| assert_eq!(line.parse::<Config>().unwrap_err().to_string(), text);
        check("nodes=x", "nodes=x is no number");
        check("zones=0", "zones=0 is no number above zero");
        check("nodes=200000", "nodes=200000 is no number that small");
        check("cpu=-1", "cpu=-1 is no quantity above zero");
        check("memory=much", "memory=much is no quantity such as 4 or 16Gi");
        check("nodes=1,nodes=2", "nodes= is there twice");
        check("nodes=1,pods=111", "111 pods do not fit on 1 nodes with 110 each");
        let keys = "nodes=, pods=, zones=, cpu=, memory=, pods-per-node=, seed=, start-pods=";
        check("node=1", &format!("\"node=1\" is none of {keys}"));
        check("5000", &format!("\"5000\" is none of {keys}"));
    }
}
