//! `metrics.k8s.io`, mounted into the API server of this process.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_apiserver::{ApiServer, LocalApi, LocalHandler, LocalResource};
use kedge_client::{Informers, client_from_service};
use kedge_meta::{Clock, StatusBoard, UserInfo};
use kedge_metrics_api::{Config, Deps, GROUP, MetricsService, RESOURCES, VERSION, roles};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use crate::control_plane::{ControlPlane, Ended};
use crate::error::Error;

/// Who scrapes nodes.
const SCRAPER: &str = "system:metrics-api";
/// Behind every group that upstream serves itself, where the metrics server puts itself too.
const PRIORITY: i32 = 100;

/// The API server that gets the group, and what goes with it.
pub(crate) struct Source<'a> {
    pub(crate) informers: &'a Informers,
    pub(crate) server: &'a ApiServer,
    pub(crate) board: &'a StatusBoard,
    pub(crate) clock: &'a Arc<dyn Clock>,
}

impl<'a> Source<'a> {
    pub(crate) fn of(control_plane: &'a ControlPlane) -> Self {
        let ControlPlane { informers, server, board, clock, .. } = control_plane;
        Self { informers, server, board, clock }
    }
}

/// Mounts the group and starts to scrape.
pub(crate) async fn start(
    source: Source<'_>,
    components: &mut JoinSet<Ended>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let Source { informers, server, board, clock } = source;
    let service = MetricsService::new(informers.all::<Node>(), informers.all::<Pod>(), clock.clone());
    server.mount(local_api(service.clone())).await?;
    let deps = Deps {
        client: client_from_service(server.local_service(UserInfo::authenticated(SCRAPER, []))),
        service,
        status: board.component("metrics-api"),
        clock: clock.clone(),
    };
    let token = shutdown.clone();
    components.spawn(async move {
        kedge_metrics_api::run(Config::default(), deps, token).await;
        ("metrics-api", Ok(()))
    });
    Ok(())
}

fn local_api(service: MetricsService) -> LocalApi {
    let resources = RESOURCES.map(|served| LocalResource {
        resource: served.resource,
        singular: "",
        kind: served.kind,
        namespaced: served.namespaced,
        verbs: served.verbs,
    });
    let handler = LocalHandler::new(service_fn(move |request: Request<Bytes>| {
        let response = service.respond(&request);
        async move { Ok::<_, Infallible>(response) }
    }));
    LocalApi {
        group: GROUP,
        version: VERSION,
        group_priority_minimum: PRIORITY,
        version_priority: PRIORITY,
        resources: resources.into(),
        objects: roles(SCRAPER),
        handler,
    }
}
