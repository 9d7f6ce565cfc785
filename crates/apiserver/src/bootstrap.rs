//! The objects that every cluster has, ensured at start, and records of what Services hold.
//!
//! What is there already is left as it is, except for the `kubernetes` Service's endpoints, which name the servers
//! that live.

use kedge_kinds::WriteContext;
use kedge_meta::ApiStatus;
use kedge_store::{CommitError, Condition, Expect, ListRequest, Transaction, Write};
use serde_json::Value;

use crate::admission::missing_records;
use crate::core::{Core, decode, new_uid};
use crate::front_proxy::FrontProxy;
use crate::reply::store_error;
use crate::{convert, encode, object};

mod endpoints;
mod flow_control;
mod objects;
mod token_tracking;

pub(crate) use endpoints::leave;

/// Stores have a limit: an etcd takes 128 operations at once.
const OBJECTS_PER_COMMIT: usize = 50;

/// How often a commit is planned again after conflicts.
const ATTEMPTS: usize = 20;

/// Ensures them all, and records what Services hold.
pub(crate) async fn ensure(core: &Core, client_ca: Option<&str>) -> Result<(), ApiStatus> {
    let all = objects::all(&core.config, client_ca, core.front_proxy.as_ref(), core.clock.now());
    commit(core, all.into_iter().chain(kedge_auth::bootstrap_policy())).await?;
    flow_control::ensure(core).await?;
    token_tracking::ensure(core).await?;
    widen_service_cidr(core).await?;
    complete_ledger(core).await
}

/// Ensures what people delete by mistake and clusters do not work without: the system's namespaces, flow schemas, and the
/// Service through which pods reach the API. Done again and again, as upstream's bootstrap controller does.
pub(crate) async fn repair(core: &Core) -> Result<(), ApiStatus> {
    commit(core, objects::indispensable(&core.config).into_iter()).await?;
    flow_control::ensure(core).await?;
    token_tracking::ensure(core).await?;
    // The Service may have been made again just now.
    match core.object("", "services", "default", "kubernetes").await? {
        Some((_, service)) => note_holdings(core, &service).await,
        None => Ok(()),
    }
}

/// Ensures some objects, and that the endpoints of the API name who lives.
pub(crate) async fn commit(core: &Core, wanted: impl Iterator<Item = Value>) -> Result<(), ApiStatus> {
    let wanted: Vec<Value> = wanted.collect();
    for some in wanted.chunks(OBJECTS_PER_COMMIT) {
        commit_some(core, some).await?;
    }
    endpoints::renew(core).await?;
    commit_endpoints(core).await
}

/// Ensures some objects in one commit, which is planned again where another server of the same store was faster.
async fn commit_some(core: &Core, wanted: &[Value]) -> Result<(), ApiStatus> {
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::default();
        for object in wanted {
            plan(core, object.clone(), core.clock.now(), &mut transaction).await?;
        }
        if is_done(core, transaction).await? {
            return Ok(());
        }
    }
    Err(ApiStatus::internal("other servers keep changing the bootstrap objects"))
}

async fn commit_endpoints(core: &Core) -> Result<(), ApiStatus> {
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::default();
        for object in objects::kubernetes_endpoints(&endpoints::living(core).await?) {
            plan(core, object.clone(), core.clock.now(), &mut transaction).await?;
            plan_refresh(core, object, &mut transaction).await?;
        }
        if is_done(core, transaction).await? {
            return Ok(());
        }
    }
    Err(ApiStatus::internal("other servers keep changing the endpoints of the API"))
}

/// Commits; `false` where somebody else changed what it rests on.
async fn is_done(core: &Core, transaction: Transaction) -> Result<bool, ApiStatus> {
    if transaction.writes.is_empty() {
        return Ok(true);
    }
    match core.store.commit(transaction).await {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(CommitError::Store(error)) => Err(store_error(error)),
    }
}

/// Adds the write of one object, if it is not there.
async fn plan(
    core: &Core,
    mut object: Value,
    now: jiff::Timestamp,
    transaction: &mut Transaction,
) -> Result<(), ApiStatus> {
    let registry = core.registry.load();
    let resource = resource_of(&registry, &object)?;
    let key = resource.key(object::namespace(&object), object::name(&object));
    if core.store.get(&key).await.map_err(store_error)?.is_some() {
        return Ok(());
    }
    resource.kind.default(&mut object);
    let status = object.get("status").cloned();
    resource.kind.prepare_create(&mut object, &WriteContext { now, uid: &new_uid() });
    if let (Some(status), Some(fields)) = (status, object.as_object_mut()) {
        fields.insert("status".to_owned(), status);
    }
    let value = convert::own_template(resource, &object);
    transaction.conditions.push(Condition { key: key.clone(), expect: Expect::Absent });
    transaction.writes.push(Write::Put { key, value, ttl: None });
    Ok(())
}

/// Brings what extension servers are told about authorities up to date.
pub(crate) async fn publish_authorities(
    core: &Core,
    clients: Option<&str>,
    front_proxies: Option<&str>,
) -> Result<(), ApiStatus> {
    let proxy = core.front_proxy.clone().map(|proxy| match front_proxies {
        Some(pem) => FrontProxy { authority_pem: pem.to_owned(), ..proxy },
        None => proxy,
    });
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::default();
        let wanted = objects::extension_authentication(clients, proxy.as_ref());
        plan_update(core, &wanted, &["data"], &mut transaction).await?;
        if is_done(core, transaction).await? {
            return Ok(());
        }
    }
    Err(ApiStatus::internal("somebody else keeps changing the ConfigMap extension-apiserver-authentication"))
}

/// Brings endpoints that are there up to date with what they are to say now.
async fn plan_refresh(core: &Core, wanted: Value, transaction: &mut Transaction) -> Result<(), ApiStatus> {
    plan_update(core, &wanted, &["subsets", "addressType", "endpoints", "ports"], transaction).await
}

/// Brings some fields of an object that is there up to date with what they are to say now.
async fn plan_update(
    core: &Core,
    wanted: &Value,
    fields: &[&str],
    transaction: &mut Transaction,
) -> Result<(), ApiStatus> {
    let registry = core.registry.load();
    let resource = resource_of(&registry, wanted)?;
    let key = resource.key(object::namespace(wanted), object::name(wanted));
    let Some(record) = core.store.get(&key).await.map_err(store_error)? else { return Ok(()) };
    let mut object = decode(&record)?;
    for field in fields {
        object::copy_field(wanted, &mut object, field);
    }
    let value = encode::template(&object);
    if !encode::is_unchanged(&value, &record) {
        transaction.conditions.push(Condition { key: key.clone(), expect: Expect::Modified(record.modified) });
        transaction.writes.push(Write::Put { key, value, ttl: None });
    }
    Ok(())
}

/// Adds the second family to the default range of Services, where the configuration has got one since.
async fn widen_service_cidr(core: &Core) -> Result<(), ApiStatus> {
    let wanted: Vec<String> = core.config.service_cluster_ip_ranges.iter().map(ToString::to_string).collect();
    let registry = core.registry.load();
    let Some(resource) = registry.storage("networking.k8s.io", "servicecidrs") else { return Ok(()) };
    for _ in 0..ATTEMPTS {
        let key = resource.key("", objects::SERVICE_CIDR);
        let Some(record) = core.store.get(&key).await.map_err(store_error)? else { return Ok(()) };
        let mut object = decode(&record)?;
        let known = object::list(&object, &["spec", "cidrs"]);
        if wanted.len() != 2 || known.len() != 1 || known[0] != wanted[0] {
            if known != wanted {
                tracing::warn!(?known, ?wanted, "the default ServiceCIDR does not match the configured ranges");
            }
            return Ok(());
        }
        object::child_mut(&mut object, "spec").insert("cidrs".to_owned(), wanted.clone().into());
        let mut transaction = Transaction::default();
        transaction.conditions.push(Condition { key: key.clone(), expect: Expect::Modified(record.modified) });
        transaction.writes.push(Write::Put { key, value: encode::template(&object), ttl: None });
        if is_done(core, transaction).await? {
            return Ok(());
        }
    }
    Err(ApiStatus::internal("other servers keep changing the default ServiceCIDR"))
}

fn resource_of<'a>(
    registry: &'a crate::registry::Registry,
    object: &Value,
) -> Result<&'a crate::registry::Resource, ApiStatus> {
    let (api_version, kind) = (object::text(object, &["apiVersion"]), object::text(object, &["kind"]));
    let gvk = kedge_meta::GroupVersionKind::from_fields(api_version, kind);
    let found = registry.find_kind(&gvk.group, &gvk.version, &gvk.kind);
    found.map(AsRef::as_ref).ok_or_else(|| ApiStatus::internal(format!("{api_version} {kind} is not served")))
}

/// Records which addresses and ports Services hold, where that is not recorded.
async fn complete_ledger(core: &Core) -> Result<(), ApiStatus> {
    let registry = core.registry.load();
    let Some(resource) = registry.storage("", "services") else { return Ok(()) };
    let request = ListRequest { prefix: resource.kind.prefix(""), ..ListRequest::default() };
    let page = core.store.list(request).await.map_err(store_error)?;
    for record in &page.records {
        note_holdings(core, &decode(record)?).await?;
    }
    Ok(())
}

async fn note_holdings(core: &Core, service: &Value) -> Result<(), ApiStatus> {
    let (conditions, writes) = missing_records(core, service).await?;
    if writes.is_empty() {
        return Ok(());
    }
    match core.store.commit(Transaction { conditions, writes, ..Transaction::default() }).await {
        // Another server of the same store was faster.
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(CommitError::Store(error)) => Err(store_error(error)),
    }
}
