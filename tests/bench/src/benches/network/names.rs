//! How many names of the cluster its DNS answers in a second, and how soon: server and clients in one namespace, over UDP,
//! each client with one question on its way, among 1,000 Services.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, Service};
use kedge_client::Informer;
use kedge_meta::{StatusBoard, SystemClock};
use kedge_netns::Namespace;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{figure, latency};
use crate::figures::Figure;

const ADDRESS: &str = "127.0.0.1:10053";
const SERVICES: u32 = 1_000;
const CLIENTS: u32 = 8;
const DURATION: Duration = Duration::from_secs(5);
/// What CoreDNS's own deployment guide says of one replica with two cores: 33,669 internal queries in a second, 2.6 ms on average.
const COMPARE: &str = "CoreDNS, 2 cores: 33,669/s, 2.6 ms mean";

pub(super) fn measure() -> Result<Vec<Figure>> {
    let place = Namespace::new();
    place.run(|| {
        // Its threads are in the namespace, as this one is.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let stop = CancellationToken::new();
        let server = runtime.spawn(kedge_dns::run(config()?, deps()?, stop.clone()));
        wait_for_answers()?;
        let mut figures = Vec::new();
        for (what, suffix) in [("names that are there", ""), ("names that are not there", ".search")] {
            let (answers, latencies) = load(suffix)?;
            let rate = f64::from(answers) / DURATION.as_secs_f64();
            figures.push(figure(format!("DNS answers, {what}, {CLIENTS} clients"), rate, "/s", COMPARE));
            figures.push(latency(format!("a DNS answer, {what}"), latencies));
        }
        stop.cancel();
        runtime.block_on(server)??;
        Ok(figures)
    })
}

fn config() -> Result<kedge_dns::Config> {
    let (pods, services) = ("10.244.0.0/16".parse()?, "10.96.0.0/12".parse()?);
    let (node, dns) = (ADDRESS.parse::<SocketAddr>()?.ip(), "10.96.0.10".parse()?);
    let mut config = kedge_dns::Config::new("bench", &[node], &[dns], vec![pods], vec![services]);
    (config.publish, config.introspection) = (None, Vec::new());
    config.resolv_conf = "/nonexistent/resolv.conf".into();
    Ok(config)
}

fn deps() -> Result<kedge_dns::Deps> {
    let services: Vec<Service> =
        (0..SERVICES).map(|number| Ok(super::service(number, &[])?.0)).collect::<Result<_>>()?;
    let namespace: ApiNamespace = serde_json::from_value(json!({"metadata": {"name": "bench"}}))?;
    Ok(kedge_dns::Deps {
        services: Informer::fixed(services),
        endpoint_slices: Informer::fixed([]),
        namespaces: Informer::fixed([namespace]),
        config_maps: None,
        client: None,
        status: StatusBoard::new(std::sync::Arc::new(SystemClock)).component("kedge-dns"),
    })
}

fn wait_for_answers() -> Result<()> {
    let client = Client::new("")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.ask(0).is_err() {
        ensure!(Instant::now() < deadline, "cluster DNS does not answer");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// All clients at once, until the time is over.
fn load(suffix: &'static str) -> Result<(u32, Vec<u32>)> {
    let one = move |first: u32| -> Result<Vec<u32>> {
        let (client, began, mut latencies) = (Client::new(suffix)?, Instant::now(), Vec::new());
        for number in (first..).step_by(7) {
            if began.elapsed() > DURATION {
                break;
            }
            let asked = Instant::now();
            client.ask(number % SERVICES)?;
            latencies.push(u32::try_from(asked.elapsed().as_micros())?);
        }
        Ok(latencies)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|first| thread::spawn(move || one(first))).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.join().map_err(|_| anyhow!("a client broke"))??);
    }
    Ok((u32::try_from(all.len())?, all))
}

struct Client {
    socket: UdpSocket,
    suffix: &'static str,
}

impl Client {
    fn new(suffix: &'static str) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(ADDRESS)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(Self { socket, suffix })
    }

    /// Asks for the address of a Service.
    fn ask(&self, number: u32) -> Result<()> {
        let id = u16::try_from(number)?.to_be_bytes();
        let mut question = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in format!("svc-{number}.bench{}.svc.cluster.local", self.suffix).split('.') {
            question.push(u8::try_from(label.len())?);
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        self.socket.send(&question)?;
        let mut answer = [0; 1500];
        let length = self.socket.recv(&mut answer).context("a question got no answer")?;
        let (code, answers) = (answer[3] & 0xf, u16::from_be_bytes([answer[6], answer[7]]));
        let expected = if self.suffix.is_empty() { (0, 1) } else { (3, 0) };
        ensure!(length > 12 && answer[..2] == id && (code, answers) == expected, "an answer is wrong");
        Ok(())
    }
}
