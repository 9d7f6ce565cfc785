//! The way from the machine to a cluster's API servers: a process that listens on the machine's loopback address and on the
//! bridge, and passes connections on to whichever control plane takes them.
//!
//! Not a proxy of HTTP: bytes go through as they are, TLS is between the client and the API server. Invariant: the machine
//! gets neither an interface nor a route by it, as a socket stays in the namespace in which it was made.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kedge_lifecycle::ProcessMark;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::addresses::{API_PORT, GATEWAY};
use crate::error::Error;
use crate::layout::ClusterLayout;
use crate::record::{ClusterRecord, read_json, write_json};
use crate::switch;
use crate::wait::wait_for;

/// A control plane that takes longer is taken for gone.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const MOST_CONNECTIONS: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the gateway of a cluster where it does not run.
pub(crate) fn ensure(layout: &ClusterLayout, record: &ClusterRecord) -> Result<(), Error> {
    if running(layout)?.is_some() {
        return Ok(());
    }
    let log = File::options().create(true).append(true).open(layout.gateway_log());
    let log = log.map_err(|source| Error::File { action: "write", path: layout.gateway_log(), source })?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["cluster", "gateway", "--cluster-dir"]).arg(layout.root());
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child =
        command.spawn().map_err(|source| Error::Spawn { command: "kedge cluster gateway".to_owned(), source })?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, record.api_port));
    let mut has_ended = false;
    wait_for(&format!("the gateway at {address}"), PATIENCE, || {
        has_ended = child.try_wait().is_ok_and(|status| status.is_some());
        has_ended || running(layout).is_ok_and(|mark| mark.is_some())
    })?;
    match has_ended {
        false => Ok(()),
        true => Err(Error::NotReached {
            what: format!("the gateway at {address} did not start"),
            advice: format!("see {}", layout.gateway_log().display()),
        }),
    }
}

/// The gateway's process.
pub(crate) fn running(layout: &ClusterLayout) -> Result<Option<ProcessMark>, Error> {
    Ok(read_json::<ProcessMark>(&layout.gateway())?.filter(ProcessMark::is_running))
}

/// Ends the gateway.
pub(crate) fn end(layout: &ClusterLayout) -> Result<(), Error> {
    // Where the file is damaged there is nobody to end: the process would have written it whole.
    let Some(mark) = running(layout).ok().flatten() else { return Ok(()) };
    let sent = kill(Pid::from_raw(mark.pid), Signal::SIGKILL);
    sent.map_err(|source| Error::Kernel { action: "end the gateway".to_owned(), source })?;
    wait_for("the end of the gateway", PATIENCE, || !mark.is_running())
}

/// Is the gateway of a cluster, until SIGTERM. To be called before the process has other threads.
pub fn gateway(cluster_dir: &Path) -> Result<(), Error> {
    let kernel = |action: &str| {
        let action = action.to_owned();
        move |source| Error::Kernel { action, source }
    };
    let layout = ClusterLayout::at(cluster_dir);
    let record = ClusterRecord::read(&layout)?;
    nix::unistd::setsid().map_err(kernel("begin a session"))?;
    let outside = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, record.api_port)))?;
    let path = switch::path(&record.name);
    let namespace = File::open(&path).map_err(|source| Error::File { action: "open", path, source })?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(kernel("enter the cluster's network"))?;
    let inside = listen(SocketAddr::from((GATEWAY, API_PORT)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let spawn = |source| Error::Spawn { command: "kedge cluster gateway".to_owned(), source };
    runtime.map_err(spawn)?.block_on(async {
        let servers = Arc::new(Servers::new(&record));
        let outside = TcpListener::from_std(outside).map_err(spawn)?;
        let inside = TcpListener::from_std(inside).map_err(spawn)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(spawn)?;
        write_json(&layout.gateway(), &ProcessMark::own())?;
        tokio::select! {
            () = serve(outside, servers.clone()) => {}
            () = serve(inside, servers) => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

fn listen(address: SocketAddr) -> Result<StdListener, Error> {
    let listener = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| Error::Spawn { command: format!("listen on {address}"), source })
}

/// The API servers, and whose turn it is.
struct Servers {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    places: Arc<Semaphore>,
}

impl Servers {
    fn new(record: &ClusterRecord) -> Self {
        let addresses = record.control_planes().map(|node| SocketAddr::from((node.address, API_PORT))).collect();
        Self { addresses, next: AtomicUsize::new(0), places: Arc::new(Semaphore::new(MOST_CONNECTIONS)) }
    }

    /// A connection to the first one that takes it, beginning with the one whose turn it is.
    async fn connect(&self) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for offset in 0..self.addresses.len() {
            let address = self.addresses[(first.wrapping_add(offset)) % self.addresses.len()];
            if let Ok(Ok(stream)) = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await {
                return Some(stream);
            }
        }
        None
    }
}

async fn serve(listener: TcpListener, servers: Arc<Servers>) {
    loop {
        let Ok(place) = servers.places.clone().acquire_owned().await else { return };
        let Ok((mut client, _)) = listener.accept().await else {
            // Out of descriptors, say: what is open may end meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let servers = servers.clone();
        tokio::spawn(async move {
            if let Some(mut server) = servers.connect().await {
                // Either side may go without a word; the other one is told by the end of its stream.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
            drop(place);
        });
    }
}
