//! Plug-ins that register themselves: sockets in `plugins_registry`, seen by inotify and by a rescan.
//!
//! Which sockets came and went is pure; asking them is not. Invariant: a plug-in that does not answer delays no other, and is
//! asked again with growing pauses as long as its socket is there.

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kedge_csi::{PluginHandler, Registration};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio_util::sync::CancellationToken;

use crate::set_up::Volumes;

const RESCAN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A plug-in makes its socket, listens, and then changes its mode.
const SETTLE: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(122);
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(10);
const DEEPEST: usize = 3;

/// What tells a socket from a later one at the same path.
type Identity = (u64, i64, i64);

/// Watches for plug-ins until `shutdown`.
pub(crate) async fn run(volumes: Arc<Volumes>, shutdown: CancellationToken) {
    let directory = volumes.deps.dirs.plugins_registry();
    if let Err(error) = std::fs::create_dir_all(&directory) {
        tracing::error!(path = %directory.display(), %error, "failed to make the directory in which plug-ins register");
    }
    let watch = watch(&directory)
        .inspect_err(|error| tracing::warn!(%error, "plug-ins are only looked for from time to time"))
        .ok();
    let mut known: HashMap<PathBuf, (Identity, CancellationToken)> = HashMap::new();
    loop {
        let found = scan(&directory);
        for path in gone(&known, &found) {
            if let Some((_, plugin)) = known.remove(&path) {
                plugin.cancel();
            }
        }
        for (path, identity) in found {
            known.entry(path.clone()).or_insert_with(|| {
                let plugin = shutdown.child_token();
                tokio::spawn(attend(volumes.clone(), path, plugin.clone()));
                (identity, plugin)
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = changed(watch.as_ref()) => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(RESCAN) => {}
        }
    }
}

/// Sockets that are not there any more, or are others by now.
fn gone(known: &HashMap<PathBuf, (Identity, CancellationToken)>, found: &HashMap<PathBuf, Identity>) -> Vec<PathBuf> {
    let left = known.iter().filter(|(path, (identity, _))| found.get(*path) != Some(identity));
    left.map(|(path, _)| path.clone()).collect()
}

fn scan(directory: &Path) -> HashMap<PathBuf, Identity> {
    let mut found = HashMap::new();
    scan_into(directory, DEEPEST, &mut found);
    found
}

fn scan_into(directory: &Path, deeper: usize, found: &mut HashMap<PathBuf, Identity>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let Ok(metadata) = entry.metadata() else { continue };
        if hidden {
            continue;
        }
        if metadata.file_type().is_socket() {
            found.insert(entry.path(), (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()));
        } else if metadata.is_dir() && deeper > 0 {
            scan_into(&entry.path(), deeper - 1, found);
        }
    }
}

/// The life of one plug-in's socket: registered until it is gone.
async fn attend(volumes: Arc<Volumes>, socket: PathBuf, gone: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    let plugin = loop {
        let attempt = tokio::select! {
            () = gone.cancelled() => return,
            attempt = register(&volumes, &socket) => attempt,
        };
        match attempt {
            Ok(plugin) => break plugin,
            Err(error) => {
                tracing::warn!(socket = %socket.display(), error, "failed to register a plug-in; trying again");
            }
        }
        tokio::select! {
            () = gone.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    gone.cancelled().await;
    // The end of this process is no word about the driver.
    if volumes.shutdown.is_cancelled() {
        return;
    }
    let driver = match plugin {
        // Its next registration replaces this one.
        Plugin::Storage(_) if socket.exists() => return,
        Plugin::Storage(driver) => driver,
        Plugin::Other { handler, name, endpoint } => return handler.gone(&name, &endpoint).await,
    };
    volumes.csi.drivers.remove(&driver);
    tracing::info!(driver, "a CSI driver is gone");
    if let Err(error) = volumes.csi.node_info.uninstall(&driver).await {
        tracing::warn!(driver, error, "failed to take a driver out of the node's objects");
    }
}

/// A plug-in that was taken in.
enum Plugin {
    Storage(String),
    Other { handler: Arc<dyn PluginHandler>, name: String, endpoint: PathBuf },
}

/// Asks a plug-in who it is, takes it in, and tells it the outcome.
async fn register(volumes: &Volumes, socket: &Path) -> Result<Plugin, String> {
    let registration = Registration::new(socket, REGISTRATION_DEADLINE);
    let info = registration.get_info().await.map_err(|error| format!("failed to get plugin info: {error}"))?;
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) };
    let handler = volumes.deps.plugin_handlers.iter().find(|handler| handler.kind() == info.r#type).cloned();
    let taken = match (&handler, check(&info.r#type, &info.name, &info.supported_versions)) {
        (Some(handler), _) => handler.take_in(&info.name, &endpoint, &info.supported_versions).await,
        (None, Ok(())) => take_in(volumes, &info.name, &endpoint).await,
        (None, Err(error)) => Err(error),
    };
    let told = registration.notify(taken.clone()).await;
    if let Err(error) = taken {
        return Err(format!("plugin registration of {:?} failed: {error}", info.name));
    }
    if let Err(error) = told {
        if let Some(handler) = handler {
            handler.gone(&info.name, &endpoint).await;
        }
        return Err(format!("failed to tell the plug-in {:?} that it is registered: {error}", info.name));
    }
    Ok(match handler {
        Some(handler) => Plugin::Other { handler, name: info.name, endpoint },
        None => Plugin::Storage(info.name),
    })
}

/// Upstream's words for plug-ins that are not taken.
fn check(kind: &str, name: &str, versions: &[String]) -> Result<(), String> {
    if kind != "CSIPlugin" {
        return Err(format!("no handler registered for plugin type: {kind}"));
    }
    if versions.is_empty() {
        return Err(format!(
            "kubernetes.io/csi: validation failed for CSI Driver {name}: no versions were supplied in the registration request"
        ));
    }
    let major = |version: &String| version.trim_start_matches('v').split('.').next() == Some("1");
    match versions.iter().any(major) {
        true => Ok(()),
        false => Err(format!(
            "kubernetes.io/csi: validation failed for CSI Driver {name}: none of the versions specified {versions:?} are supported"
        )),
    }
}

async fn take_in(volumes: &Volumes, name: &str, endpoint: &Path) -> Result<(), String> {
    let registered = volumes.csi.drivers.insert(name, endpoint);
    let installed = async {
        let info = tokio::time::timeout(REGISTRATION_DEADLINE, registered.driver.node_info()).await;
        let info = info
            .map_err(|_| "the driver did not answer NodeGetInfo in time".to_owned())?
            .map_err(|error| format!("error during CSI NodeGetInfo() call: {error}"))?;
        let topology = info.accessible_topology.as_ref().map(|topology| topology.segments.len()).unwrap_or_default();
        volumes.csi.node_info.install(name, &info).await?;
        tracing::info!(driver = name, node_id = info.node_id, topology, "a CSI driver is registered");
        Ok(())
    };
    let result = installed.await;
    if result.is_err() {
        volumes.csi.drivers.remove(name);
    }
    result
}

fn watch(directory: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB;
    inotify.add_watch(directory, flags)?;
    Ok(inotify)
}

/// Returns after a change; never where nothing can be watched.
async fn changed(watch: Option<&Inotify>) {
    let Some(watch) = watch else { return std::future::pending().await };
    let mut any = false;
    while !any {
        // A look at the queue costs one system call; a thread or a registration would cost more.
        tokio::time::sleep(LOOK_EVERY).await;
        // Which file it was does not matter: all are looked at.
        while watch.read_events().is_ok_and(|events| !events.is_empty()) {
            any = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let socket = |name: &str| std::os::unix::net::UnixListener::bind(directory.path().join(name)).unwrap();
        let _first = socket("a.sock");
        let _hidden = socket(".hidden.sock");
        std::fs::write(directory.path().join("file"), "x").unwrap();
        std::fs::create_dir(directory.path().join("deep")).unwrap();
        let _deep = socket("deep/b.sock");
        let found = scan(directory.path());
        let mut names: Vec<_> = found.keys().map(|path| path.strip_prefix(directory.path()).unwrap()).collect();
        names.sort();
        assert_eq!(names, [Path::new("a.sock"), Path::new("deep/b.sock")]);
        let mut known: HashMap<_, _> =
            found.iter().map(|(path, identity)| (path.clone(), (*identity, CancellationToken::new()))).collect();
        assert!(gone(&known, &found).is_empty());
        let path = directory.path().join("a.sock");
        known.get_mut(&path).unwrap().0.0 += 1;
        assert_eq!(gone(&known, &found), std::slice::from_ref(&path), "another socket at the same path");
        assert_eq!(gone(&known, &HashMap::new()).len(), 2);
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let versions = |versions: &[&str]| versions.iter().map(|version| (*version).to_owned()).collect::<Vec<_>>();
        assert_eq!(check("CSIPlugin", "d", &versions(&["1.0.0"])), Ok(()));
        assert_eq!(check("CSIPlugin", "d", &versions(&["0.3.0", "v1.5.0"])), Ok(()));
        assert!(check("CSIPlugin", "d", &versions(&["0.3.0"])).is_err());
        assert!(check("CSIPlugin", "d", &[]).is_err());
        assert_eq!(
            check("DevicePlugin", "d", &versions(&["v1beta1"])),
            Err("no handler registered for plugin type: DevicePlugin".to_owned())
        );
    }
}
