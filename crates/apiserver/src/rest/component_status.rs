//! `componentstatuses`: upstream's deprecated view of components, out of the status board.

use std::sync::Arc;

use http::StatusCode;
use kedge_meta::{ApiStatus, ComponentReport, ComponentState};
use serde_json::{Value, json};

use crate::call::Call;
use crate::core::Core;
use crate::negotiate::Form;
use crate::present::View;
use crate::registry::Resource;
use crate::reply::{self, Reply};

/// GET of one or of all.
pub(super) async fn answer(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let name = &call.resource().name;
    let reports = core.board.reports();
    let accepted = call.accepted()?;
    let document = match call.verb {
        "get" => {
            let report = reports.iter().find(|report| report.component == *name);
            status(report.ok_or_else(|| ApiStatus::not_found(&resource.group_resource, name))?)
        }
        "list" => {
            let items: Vec<Value> = reports.iter().map(status).collect();
            if let Form::Table(_) = accepted.form {
                return table(call, resource, &items).await;
            }
            json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items})
        }
        _ => return Err(ApiStatus::method_not_allowed()),
    };
    Ok(reply::document(StatusCode::OK, accepted.encoding, &document))
}

async fn table(call: &Call, resource: &Resource, items: &[Value]) -> Reply {
    let view = View::of(call, resource)?;
    let record = |item: &Value| kedge_store::Record {
        key: kedge_store::Key::new(""),
        value: item.to_string().into(),
        splice_at: None,
        created: kedge_store::Revision(0),
        modified: kedge_store::Revision(0),
    };
    Ok(view.list(resource, items.iter().map(record).collect(), &crate::present::ListMeta::default()).await)
}

fn status(report: &ComponentReport) -> Value {
    let healthy = matches!(report.state, ComponentState::Running | ComponentState::Starting);
    let mut condition = json!({"type": "Healthy", "status": if healthy { "True" } else { "False" }});
    match healthy {
        true => condition["message"] = json!("ok"),
        false => condition["error"] = json!(format!("{}: {}", report.reason, report.message)),
    }
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": report.component}, "conditions": [condition]})
}
