//! The user namespaces of pods: each pod that asks for one gets a range of ids of its own on this node.
//!
//! The ranges are 65536 ids long, begin at the one after the node's own users (or where `getsubids kubelet` says), and are
//! noted in each pod's directory, in upstream's form. Mapping files is the runtime's work. Invariant: no two pods with a
//! directory on this node have the same range, also after a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use kedge_cri::v1;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::spec;

/// How many ids a pod gets.
const LENGTH: u32 = 1 << 16;
const FILE: &str = "userns";
const USER: &str = "kubelet";

/// The ranges of all pods.
#[derive(Debug)]
pub(crate) struct UserNamespaces {
    pods_dir: PathBuf,
    room: Room,
    /// The place of each pod's range in the room, by uid.
    places: Mutex<BTreeMap<String, u32>>,
}

/// The ids of this node that are for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    first: u32,
    pods: u32,
}

/// The file of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    uid_mappings: Vec<Range>,
    gid_mappings: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl UserNamespaces {
    /// Reads what former lives of the node agent have given out.
    pub(crate) fn load(pods_dir: PathBuf, max_pods: u32) -> Self {
        let room = room_of_user(max_pods).unwrap_or_else(|error| {
            tracing::warn!(error, "the ids of user {USER} cannot be used for pods; taking the usual ones");
            usual_room(max_pods)
        });
        Self::with_room(pods_dir, room)
    }

    fn with_room(pods_dir: PathBuf, room: Room) -> Self {
        let mut places = BTreeMap::new();
        for entry in std::fs::read_dir(&pods_dir).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            match read(&entry.path()) {
                Ok(Some(note)) => drop(room.place(&note).map(|place| places.insert(uid, place))),
                Ok(None) => {}
                Err(error) => tracing::warn!(uid, error, "a pod's user namespace cannot be read"),
            }
        }
        Self { pods_dir, room, places: Mutex::new(places) }
    }

    /// What the runtime is told of a pod's users. `handlers` is what the runtime says of itself.
    pub(crate) fn of(
        &self,
        pod: &Pod,
        handler: &str,
        handlers: &[v1::RuntimeHandler],
    ) -> Result<v1::UserNamespace, String> {
        if spec::pod_spec(pod).host_users != Some(false) {
            return Ok(v1::UserNamespace { mode: v1::NamespaceMode::Node as i32, ..Default::default() });
        }
        let uid = spec::uid(pod);
        let mut places = self.places.lock();
        if let Some(place) = places.get(uid) {
            return Ok(mapping(self.room.note(*place)));
        }
        supported(handler, handlers)?;
        // A pod's directory goes last of all, with its note.
        places.retain(|uid, _| self.pods_dir.join(uid).exists());
        let place = self.room.free(&places);
        let place = place.ok_or("create user namespace: could not find an empty slot to allocate a user namespace")?;
        let note = self.room.note(place);
        write(&self.pods_dir.join(uid), &note).map_err(|error| format!("create user namespace: {error}"))?;
        places.insert(uid.to_owned(), place);
        Ok(mapping(note))
    }
}

impl Room {
    fn note(self, place: u32) -> Note {
        let range = vec![Range { host_id: self.first + place * LENGTH, container_id: 0, length: LENGTH }];
        Note { uid_mappings: range.clone(), gid_mappings: range }
    }

    /// Where a note's range lies; `None` for one that this node would not give.
    fn place(self, note: &Note) -> Option<u32> {
        let place = note.uid_mappings.first()?.host_id.checked_sub(self.first)? / LENGTH;
        (place < self.pods && self.note(place) == *note).then_some(place)
    }

    fn free(self, places: &BTreeMap<String, u32>) -> Option<u32> {
        (0..self.pods).find(|place| !places.values().any(|taken| taken == place))
    }
}

fn supported(handler: &str, handlers: &[v1::RuntimeHandler]) -> Result<(), String> {
    let refused = match handler {
        "" => "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned(),
        handler => format!(
            "can't set `spec.hostUsers: false`, RuntimeClass handler {handler:?} does not support user namespaces"
        ),
    };
    let Some(known) = handlers.iter().find(|known| known.name == handler) else {
        return Err(format!("{refused}: the handler {handler:?} is not known"));
    };
    match known.features.as_ref().is_some_and(|features| features.user_namespaces) {
        true => Ok(()),
        false => Err(refused),
    }
}

fn mapping(note: Note) -> v1::UserNamespace {
    let ids = |ranges: Vec<Range>| -> Vec<v1::IdMapping> {
        let one = |range: Range| v1::IdMapping {
            host_id: range.host_id,
            container_id: range.container_id,
            length: range.length,
        };
        ranges.into_iter().map(one).collect()
    };
    v1::UserNamespace {
        mode: v1::NamespaceMode::Pod as i32,
        uids: ids(note.uid_mappings),
        gids: ids(note.gid_mappings),
    }
}

fn read(directory: &Path) -> Result<Option<Note>, String> {
    match std::fs::read(directory.join(FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The note must outlive a power cut, or another pod could get the ids that own this one's files.
fn write(directory: &Path, note: &Note) -> std::io::Result<()> {
    let temporary = directory.join(format!(".{FILE}"));
    let mut file = std::fs::File::create(&temporary)?;
    std::io::Write::write_all(&mut file, serde_json::to_string(note)?.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, directory.join(FILE))?;
    std::fs::File::open(directory)?.sync_all()
}

fn usual_room(max_pods: u32) -> Room {
    Room { first: LENGTH, pods: max_pods }
}

/// The subordinate ids of the user `kubelet`, where there is one and somebody can tell.
fn room_of_user(max_pods: u32) -> Result<Room, String> {
    // Not by the C library: a static one crashes where it loads what it looks users up with.
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    if !users.lines().any(|line| line.split(':').next() == Some(USER)) {
        return Ok(usual_room(max_pods));
    }
    let ask = |arguments: &[&str]| match Command::new("getsubids").args(arguments).output() {
        Ok(output) if output.status.success() => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(output) => Err(format!("error retrieving additional ids for user {USER:?}: {}", output.status)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    match (ask(&[USER])?, ask(&["-g", USER])?) {
        (Some(uids), Some(gids)) if uids == gids => parse(&uids, max_pods),
        (Some(_), Some(_)) => Err(format!("mismatched subuids and subgids for user {USER:?}")),
        _ => Ok(usual_room(max_pods)),
    }
}

/// `0: kubelet 65536 7208960`.
fn parse(text: &str, max_pods: u32) -> Result<Room, String> {
    let lines: Vec<&str> = text.trim().lines().collect();
    let [line] = lines[..] else { return Err(format!("error parsing line {text:?}: it must contain only one line")) };
    let words: Vec<&str> = line.split_whitespace().collect();
    let numbers = words.get(2..4).map(|words| (words[0].parse::<u32>(), words[1].parse::<u32>()));
    let Some((Ok(first), Ok(length))) = numbers else { return Err(format!("error parsing line {line:?}")) };
    if first % LENGTH != 0 || first < LENGTH {
        return Err(format!("kubelet user assigned ID {first} must be a multiple of {LENGTH}, and not 0"));
    }
    if length % LENGTH != 0 || length / LENGTH < max_pods {
        return Err(format!("kubelet user assigned IDs are not enough to support {max_pods} pods"));
    }
    Ok(Room { first, pods: length / LENGTH })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, host_users: Option<bool>) -> Pod {
        let object = json!({"metadata": {"uid": uid}, "spec": {"containers": [], "hostUsers": host_users}});
        serde_json::from_value(object).unwrap()
    }

    fn handler(name: &str, can: bool) -> v1::RuntimeHandler {
        let features = v1::RuntimeHandlerFeatures { user_namespaces: can, ..Default::default() };
        v1::RuntimeHandler { name: name.to_owned(), features: Some(features) }
    }

    #[test]
    fn ranges_are_given_once_kept_and_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let dirs = directory.path().to_owned();
        for uid in ["a", "b", "c"] {
            std::fs::create_dir(dirs.join(uid)).unwrap();
        }
        let handlers = [handler("", true)];
        let room = Room { first: 3 * LENGTH, pods: 2 };
        let own = UserNamespaces::with_room(dirs.clone(), room);
        let first = |own: &UserNamespaces, uid: &str| {
            own.of(&pod(uid, Some(false)), "", &handlers)
                .map(|found| (found.mode, found.uids[0], found.gids == found.uids))
        };
        let expected = |place: u32| {
            let range = v1::IdMapping { host_id: (3 + place) * LENGTH, container_id: 0, length: LENGTH };
            Ok((v1::NamespaceMode::Pod as i32, range, true))
        };
        assert_eq!((first(&own, "a"), first(&own, "b"), first(&own, "a")), (expected(0), expected(1), expected(0)));
        assert!(first(&own, "c").unwrap_err().contains("could not find an empty slot"));
        let note = std::fs::read_to_string(dirs.join("b").join(FILE)).unwrap();
        let range = r#"[{"hostId":262144,"containerId":0,"length":65536}]"#;
        assert_eq!(note, format!(r#"{{"uidMappings":{range},"gidMappings":{range}}}"#));
        // Another life knows the notes, and takes the places of those whose directories are gone.
        std::fs::remove_dir_all(dirs.join("a")).unwrap();
        let next = UserNamespaces::with_room(dirs.clone(), room);
        assert_eq!((first(&next, "c"), first(&next, "b")), (expected(0), expected(1)));
        // A note of another room is nobody's.
        let other = UserNamespaces::with_room(dirs, Room { first: 9 * LENGTH, pods: 2 });
        assert!(other.places.lock().is_empty());
    }

    #[test]
    fn the_nodes_users_unless_the_pod_says_otherwise() {
        let own = UserNamespaces::with_room(PathBuf::from("/nowhere"), usual_room(110));
        for host_users in [None, Some(true)] {
            let found = own.of(&pod("a", host_users), "", &[]).unwrap();
            assert_eq!((found.mode, found.uids.len()), (v1::NamespaceMode::Node as i32, 0));
        }
        let refused =
            |name: &str, handlers: &[v1::RuntimeHandler]| own.of(&pod("a", Some(false)), name, handlers).unwrap_err();
        let (plain, named) = (
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces",
            "can't set `spec.hostUsers: false`, RuntimeClass handler \"kata\" does not support user namespaces",
        );
        assert_eq!(refused("", &[]), format!("{plain}: the handler \"\" is not known"));
        assert_eq!(refused("", &[handler("", false)]), plain);
        assert_eq!(refused("kata", &[handler("", true), handler("kata", false)]), named);
    }

    #[test]
    fn subordinate_ids_of_the_user() {
        let check = |text: &str, expected: Result<Room, &str>| match (parse(text, 110), expected) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (got, expected) => assert_eq!(got, expected.map_err(str::to_owned)),
        };
        check("0: kubelet 65536 7208960\n", Ok(Room { first: 65536, pods: 110 }));
        check("0: kubelet 65536 65536\n", Err("are not enough to support 110 pods"));
        check("0: kubelet 65537 7208960\n", Err("must be a multiple"));
        check("0: kubelet 0 7208960\n", Err("not 0"));
        check("a\nb\n", Err("only one line"));
        check("0: kubelet\n", Err("error parsing line"));
    }
}
