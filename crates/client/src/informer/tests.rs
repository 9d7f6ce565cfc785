use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

fn config_map(name: &str, version: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.namespace = Some("default".to_owned());
    object.metadata.resource_version = Some(version.to_owned());
    object
}

fn next(subscription: &mut Subscription<ConfigMap>) -> String {
    match subscription.try_next() {
        None => "nothing".to_owned(),
        Some(Change::Added(new)) => format!("added {}", new.name_any()),
        Some(Change::Updated { old, new }) => {
            format!("updated {} {:?}->{:?}", new.name_any(), old.resource_version(), new.resource_version())
        }
        Some(Change::Deleted(old)) => format!("deleted {}", old.name_any()),
    }
}

#[test]
fn a_slow_subscriber_gets_the_newest_state_of_each_object() {
    let informer = Informer::fixed([config_map("a", "1")]);
    let mut subscription = informer.subscribe();
    assert_eq!(next(&mut subscription), "added a");
    informer.put(config_map("a", "2"));
    informer.put(config_map("b", "3"));
    informer.put(config_map("a", "4"));
    informer.put(config_map("c", "5"));
    informer.remove(&ObjectKey::new("default", "c"));
    assert_eq!(next(&mut subscription), "updated a Some(\"1\")->Some(\"4\")");
    assert_eq!(next(&mut subscription), "added b");
    assert_eq!(next(&mut subscription), "nothing");
}

#[test]
fn packed_objects_are_told_and_found_as_others() {
    let informer = Informer::<ConfigMap>::idle(Warm::with_most(Some(Packing::of_json()), 1, 1));
    let mut subscription = informer.subscribe();
    for name in ["a", "b", "c"] {
        informer.put(config_map(name, "1"));
    }
    informer.put(config_map("d", "2"));
    informer.put(config_map("b", "1"));
    informer.put(config_map("b", "3"));
    let mut late = informer.subscribe();
    for subscription in [&mut subscription, &mut late] {
        let told: Vec<String> = (0..5).map(|_| next(subscription)).collect();
        assert_eq!(told, ["added a", "added b", "added c", "added d", "nothing"]);
    }
    informer.remove(&ObjectKey::new("default", "a"));
    assert_eq!(next(&mut subscription), "deleted a");
    let names = |found: Vec<Arc<ConfigMap>>| found.iter().map(|map| map.name_any()).collect::<Vec<_>>();
    assert_eq!(names(informer.list()), ["b", "c", "d"]);
    assert_eq!(names(informer.filter(|map| map.name_any() != "c")), ["b", "d"]);
    assert_eq!(names(informer.filter_in("default", |map| map.name_any() == "c")), ["c"]);
    let asks = |map: &ConfigMap| informer.get(&object_key(map)).is_some();
    assert_eq!(informer.filter(asks).len(), 3, "who looks may ask as well");
    assert_eq!(*informer.get(&ObjectKey::new("default", "c")).unwrap(), config_map("c", "1"));
    assert!(informer.contains(&ObjectKey::new("default", "d")) && !informer.contains(&ObjectKey::cluster("d")));
}

#[test]
fn a_namespace_is_found_among_others() {
    let in_namespace = |namespace: &str, name: &str| {
        let mut object = config_map(name, "1");
        object.metadata.namespace = Some(namespace.to_owned());
        object
    };
    let objects = [("a", "z"), ("b", "y"), ("b", "x"), ("b-c", "w"), ("c", "v")];
    let informer = Informer::fixed(objects.map(|(namespace, name)| in_namespace(namespace, name)));
    let names = |namespace: &str| -> Vec<String> {
        informer.in_namespace(namespace).iter().map(|map| map.name_any()).collect()
    };
    assert_eq!(names("b"), ["x", "y"]);
    assert_eq!(names("b-"), Vec::<String>::new());
    assert_eq!(names("c"), ["v"]);
}

#[test]
fn pods_are_found_by_their_node() {
    let pod = |name: &str, node: Option<&str>, version: &str| {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.resource_version = Some(version.to_owned());
        pod.spec.get_or_insert_default().node_name = node.map(str::to_owned);
        pod
    };
    let informer = Informer::fixed([pod("a", Some("n1"), "1"), pod("b", None, "1"), pod("c", Some("n1"), "1")]);
    let names = |node: &str| -> Vec<String> {
        let mut names: Vec<String> = informer.on_node(node).iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names
    };
    assert_eq!(names("n1"), ["a", "c"]);
    informer.put(pod("b", Some("n2"), "2"));
    informer.put(pod("a", Some("n1"), "3"));
    assert_eq!((names("n1"), names("n2")), (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]));
    assert!(informer.on_node("n1").iter().any(|pod| pod.resource_version().as_deref() == Some("3")));
    informer.remove(&ObjectKey::cluster("a"));
    informer.remove(&ObjectKey::cluster("c"));
    assert_eq!(names("n1"), Vec::<String>::new());
    assert_eq!(informer.cache.read().groups.len(), 1, "an empty node takes no room");
}

#[test]
fn volumes_and_claims_are_found_by_each_other_and_by_class() {
    let volume = |name: &str, class: Option<&str>, claim: Option<&str>| {
        let mut volume = PersistentVolume::default();
        volume.metadata.name = Some(name.to_owned());
        let spec = volume.spec.get_or_insert_default();
        spec.storage_class_name = class.map(str::to_owned);
        if let Some(claim) = claim {
            let reference = spec.claim_ref.get_or_insert_default();
            (reference.namespace, reference.name) = (Some("d".to_owned()), Some(claim.to_owned()));
        }
        volume
    };
    let names = |volumes: Vec<Arc<PersistentVolume>>| -> Vec<String> {
        let mut names: Vec<String> = volumes.iter().map(|volume| volume.name_any()).collect();
        names.sort();
        names
    };
    let volumes =
        Informer::fixed([volume("a", Some("fast"), None), volume("b", None, None), volume("c", None, Some("x"))]);
    assert_eq!(
        (names(volumes.open_of_class("fast")), names(volumes.open_of_class(""))),
        (vec!["a".into()], vec!["b".into()])
    );
    volumes.put(volume("a", Some("fast"), Some("x")));
    assert_eq!(names(volumes.for_claim(&ObjectKey::new("d", "x"))), ["a", "c"]);
    assert!(volumes.open_of_class("fast").is_empty() && volumes.for_claim(&ObjectKey::new("e", "x")).is_empty());

    let claim = |volume: Option<&str>| {
        let mut claim = PersistentVolumeClaim::default();
        (claim.metadata.name, claim.metadata.namespace) = (Some("x".to_owned()), Some("d".to_owned()));
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert("volume.beta.kubernetes.io/storage-class".to_owned(), "slow".to_owned());
        let spec = claim.spec.get_or_insert_default();
        (spec.storage_class_name, spec.volume_name) = (Some("fast".to_owned()), volume.map(str::to_owned));
        claim
    };
    let claims = Informer::fixed([claim(None)]);
    assert_eq!((claims.open_of_class("slow").len(), claims.open_of_class("fast").len()), (1, 0), "the annotation wins");
    claims.put(claim(Some("a")));
    assert_eq!((claims.open_of_class("slow").len(), claims.for_volume("a").len()), (0, 1));
}

#[test]
fn a_relist_removes_what_is_gone() {
    let informer = Informer::fixed([config_map("a", "1"), config_map("b", "2")]);
    let mut subscription = informer.subscribe();
    while subscription.try_next().is_some() {}
    let mut listed = HashSet::new();
    absorb(&informer, Event::Init, &mut listed);
    absorb(&informer, Event::InitApply(config_map("b", "2")), &mut listed);
    absorb(&informer, Event::InitDone, &mut listed);
    assert_eq!(next(&mut subscription), "deleted a");
    assert_eq!(next(&mut subscription), "nothing");
    assert_eq!(informer.len(), 1);
}

#[test]
fn a_dropped_subscription_is_forgotten() {
    let informer = Informer::fixed([config_map("a", "1")]);
    drop(informer.subscribe());
    informer.put(config_map("a", "2"));
    assert_eq!(informer.cache.read().subscribers.len(), 0);
}

/// A server with one pod, which changes once.
async fn answer(request: http::Request<kube::client::Body>) -> Result<http::Response<String>, std::io::Error> {
    let pod = |version: &str| {
        serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "a", "namespace": "default", "resourceVersion": version,
            "labels": {"version": version}, "managedFields": [{"manager": "m", "fieldsV1": {"f:metadata": {}}}],
        }, "spec": {"nodeName": "n", "containers": []}})
    };
    let body = match request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        true if request.uri().query().is_some_and(|query| query.contains("resourceVersion=5")) => {
            format!("{}\n", serde_json::json!({"type": "MODIFIED", "object": pod("6")}))
        }
        true => return std::future::pending().await,
        false => serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"},
            "items": [pod("4")]})
        .to_string(),
    };
    Ok(http::Response::new(body))
}

/// The body of an answer, or one that has been waited for too long.
enum Told {
    Text(String),
    Silence,
}

impl http_body::Body for Told {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Ready(match &mut *self {
            Told::Silence => Some(Err(std::io::ErrorKind::TimedOut.into())),
            Told::Text(text) if text.is_empty() => None,
            Told::Text(text) => Some(Ok(http_body::Frame::data(std::mem::take(text).into()))),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_begun_again_at_once() {
    let shutdown = CancellationToken::new();
    let silent = Arc::new(std::sync::atomic::AtomicUsize::new(3));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let silent = silent.clone();
        async move {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let decrement = |left: usize| left.checked_sub(1);
            let order = std::sync::atomic::Ordering::SeqCst;
            if is_watch && silent.fetch_update(order, order, decrement).is_ok() {
                return Ok(http::Response::new(Told::Silence));
            }
            answer(request).await.map(|answer| answer.map(Told::Text))
        }
    });
    let begun = tokio::time::Instant::now();
    let informers = Informers::new(crate::client_from_service(service), shutdown.clone());
    let mut changes = informers.all::<Pod>().subscribe();
    while changes.next().await.object().resource_version().as_deref() != Some("6") {}
    assert_eq!(begun.elapsed(), Duration::ZERO, "no back-off");
    shutdown.cancel();
}

#[tokio::test]
async fn what_is_listed_and_watched_comes_without_owners() {
    let shutdown = CancellationToken::new();
    let informers = Informers::new(crate::client_from_service(tower::service_fn(answer)), shutdown.clone());
    let informer = informers.all::<Pod>();
    let mut changes = informer.subscribe();
    loop {
        // Where the change comes before anybody looked, only the newest state is told.
        let pod = changes.next().await.object().clone();
        let version = pod.resource_version().unwrap_or_default();
        assert_eq!(pod.labels().get("version"), Some(&version));
        assert_eq!(pod.metadata.managed_fields, None);
        if version == "6" {
            break;
        }
    }
    assert_eq!(informer.on_node("n").len(), 1);
    shutdown.cancel();
}
