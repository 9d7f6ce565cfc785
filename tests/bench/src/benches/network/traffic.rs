//! What connections pay for going through a ClusterIP or a node port, against going to the endpoint itself: a client and a
//! server in two namespaces with a wire between them, the proxy's table on the client's side, with 1,000 Services in it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kedge_netns::{Namespace, sh};
use kedge_proxy::{NodeView, plan_service};

use super::{config, figure, keeper, latency, service};
use crate::figures::Figure;

const ENDPOINT: &str = "10.244.0.2";
const PORT: u16 = 8080;
const SERVICES: u32 = 1_000;
const CONNECTIONS: usize = 2_000;
const TRANSFER: Duration = Duration::from_secs(3);
const BLOCK: usize = 1 << 17;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let (node, pod) = (Namespace::new(), Namespace::new());
    wire(&node, &pod);
    pod.run(serve)?;
    node.block_on(|| async { write_rules().await })?;
    let mut figures = Vec::new();
    let targets = [
        ("directly", format!("{ENDPOINT}:{PORT}")),
        ("by ClusterIP", "10.96.1.0:80".into()),
        ("by node port", "192.0.2.2:30000".into()),
    ];
    for (way, target) in targets {
        let address: SocketAddr = target.parse()?;
        let (latencies, rate) = node.run(move || Ok::<_, anyhow::Error>((connect(address)?, transfer(address)?)))?;
        figures.push(latency(format!("connection with a question and an answer, {way}"), latencies));
        figures.push(figure(format!("one stream, {way}"), rate, "MB/s", ""));
    }
    Ok(figures)
}

fn wire(node: &Namespace, pod: &Namespace) {
    let tid = pod.tid();
    node.run(move || {
        sh(&format!("ip link add pod0 type veth peer name eth0 netns {tid} && ip link set pod0 up"));
        sh("ip addr add 10.244.0.1/24 dev pod0 && ip link add out0 type bridge && ip link set out0 up");
        sh("ip addr add 192.0.2.2/24 dev out0 && ip route add 10.96.0.0/12 dev pod0 src 10.244.0.1");
    });
    pod.run(|| {
        sh(&format!(
            "ip addr add {ENDPOINT}/24 dev eth0 && ip link set eth0 up && ip route add default via 10.244.0.1"
        ));
    });
}

async fn write_rules() -> Result<()> {
    let config = config()?;
    let (node, mut keeper) = (NodeView::new(&config), keeper(&config));
    let endpoint: IpAddr = ENDPOINT.parse()?;
    for number in 0..SERVICES {
        let (service, slice) = service(number, &[(endpoint, PORT)])?;
        keeper.put(&format!("bench/svc-{number}"), plan_service(&service, [&slice], &node, false).fragment);
    }
    keeper.apply().await?;
    Ok(())
}

/// Answers a byte with a byte, and more than that with silence.
fn serve() -> Result<()> {
    let listener = TcpListener::bind((ENDPOINT, PORT))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK];
    let length = stream.read(&mut block)?;
    stream.write_all(&length.to_be_bytes()[..1])?;
    while stream.read(&mut block)? > 0 {}
    Ok(())
}

fn connect(address: SocketAddr) -> Result<Vec<u32>> {
    let mut latencies = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])?;
        latencies.push(u32::try_from(began.elapsed().as_micros()).map_err(|_| anyhow!("it took an hour"))?);
    }
    Ok(latencies)
}

/// Megabytes per second of one stream.
fn transfer(address: SocketAddr) -> Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    let (block, began, mut sent) = (vec![0; BLOCK], Instant::now(), 0_u64);
    while began.elapsed() < TRANSFER {
        stream.write_all(&block)?;
        sent += BLOCK as u64;
    }
    Ok(sent as f64 / 1e6 / began.elapsed().as_secs_f64())
}
