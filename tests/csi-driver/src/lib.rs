//! A small CSI driver for tests: volumes are directories, or image files behind loop devices, below one directory.
//!
//! It serves Identity, Node and Controller and its own registration, in the process of the test. It is strict where a kubelet
//! could go wrong: publishing what was not staged, or unstaging what is published, is an error. Invariant: it keeps nothing
//! that is not on disk or in the mount table, so a driver that is started again knows its volumes.

mod calls;
mod controller;
mod node;
mod place;
mod serve;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

pub use calls::Call;

use calls::Calls;

/// What kind of driver.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Its name.
    pub name: String,
    /// Its name for this node.
    pub node_id: String,
    /// So many volumes fit on this node.
    pub max_volumes: i64,
    /// Where it says that the node is.
    pub topology: Vec<(String, String)>,
}

/// What the services share.
pub(crate) struct Shared {
    pub(crate) options: DriverOptions,
    pub(crate) state: PathBuf,
    pub(crate) calls: Calls,
    pub(crate) hangs: AtomicBool,
}

/// A running driver. It ends when it is dropped; its volumes stay.
pub struct TestDriver {
    shared: Arc<Shared>,
    end: CancellationToken,
    sockets: [PathBuf; 2],
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestDriver {
    /// Serves below `state` and registers in the kubelet's root directory.
    ///
    /// # Panics
    ///
    /// Where the sockets cannot be made.
    pub fn start(options: DriverOptions, state: &Path, kubelet_root: &Path) -> Self {
        let registry = kubelet_root.join("plugins_registry");
        for directory in [state, &registry] {
            std::fs::create_dir_all(directory).expect("a directory of the test can be made");
        }
        let sockets = [state.join("csi.sock"), registry.join(format!("{}-reg.sock", options.name))];
        let shared = Arc::new(Shared {
            options,
            state: state.to_owned(),
            calls: Calls::default(),
            hangs: AtomicBool::new(false),
        });
        let end = CancellationToken::new();
        let thread = std::thread::spawn({
            let (shared, end, sockets) = (shared.clone(), end.clone(), sockets.clone());
            move || serve::run(&shared, &sockets, &end)
        });
        Self { shared, end, sockets, thread: Some(thread) }
    }

    /// From now on, node calls that work on volumes do not answer, until they may again.
    pub fn hang(&self, hangs: bool) {
        self.shared.hangs.store(hangs, Ordering::Relaxed);
    }

    /// What was asked so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.all()
    }

    /// Where a volume's files are.
    pub fn volume(&self, id: &str) -> PathBuf {
        place::directory(&self.shared.state, id)
    }

    /// Makes a volume, as `CreateVolume` does.
    ///
    /// # Panics
    ///
    /// Where it cannot be made.
    pub fn create(&self, id: &str) {
        std::fs::create_dir_all(self.volume(id)).expect("a volume of the test can be made");
    }

    /// Makes a block volume of so many bytes.
    ///
    /// # Panics
    ///
    /// Where it cannot be made.
    pub fn create_block(&self, id: &str, bytes: u64) {
        place::make_image(&self.shared.state, id, bytes).expect("a volume of the test can be made");
    }
}

impl Drop for TestDriver {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}
