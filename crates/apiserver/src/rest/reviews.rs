//! Reviews: who a token or request belongs to, and what somebody may do. Answered, never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use kedge_auth::{Attributes, Decision, ResourceAttributes};
use kedge_kinds::WriteContext;
use kedge_meta::{ApiStatus, FieldError, FieldPath, UserInfo, format_time};
use serde_json::{Value, json};

use crate::admission::{self, Operation, Seen, Told};
use crate::authenticate::token_user;
use crate::call::Call;
use crate::core::{Core, new_uid};
use crate::object;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::rest::selectors::Selectors;
use crate::write::{self, Expected, WriteOptions};

async fn read(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Result<Value, ApiStatus> {
    if call.verb != "create" {
        return Err(ApiStatus::method_not_allowed());
    }
    let options = WriteOptions::of(call)?;
    let mut review = write::read_object(core, call, Expected::of(resource), options.validation).await?;
    review.as_object_mut().and_then(|fields| fields.remove("status"));
    let described = options.described(true);
    let told = Told { options: &described, dry_run: options.dry_run, notes: &call.notes, seen: Seen::Plain };
    let asked = admission::Attributes::of(core, call, resource, Operation::Create, told);
    core.admission.ask(&asked, &mut review).await?;
    Ok(review)
}

fn answer(call: &Call, mut review: Value, status: Value) -> Reply {
    review["status"] = status;
    Ok(reply::document(StatusCode::CREATED, call.accepted_object()?, &review))
}

fn user_fields(user: &UserInfo) -> Value {
    let mut fields = json!({"username": user.username});
    if !user.uid.is_empty() {
        fields["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        fields["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        fields["extra"] = json!(user.extra);
    }
    fields
}

/// `SelfSubjectReview`: `kubectl auth whoami`.
pub(super) async fn self_subject(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let mut review = read(core, call, resource).await?;
    object::set_meta(&mut review, "creationTimestamp", &format_time(call.now));
    let status = json!({"userInfo": user_fields(&call.user)});
    answer(call, review, status)
}

/// `TokenReview`.
pub(super) async fn token(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let review = read(core, call, resource).await?;
    let token = object::text(&review, &["spec", "token"]);
    if token.is_empty() {
        return Err(ApiStatus::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Vec<String> =
        object::list(&review, &["spec", "audiences"]).iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    let audiences = if asked.is_empty() { core.config.audiences() } else { asked };
    let status = match token_user(core, token, &audiences, &call.notes).await? {
        Some((user, audiences)) => json!({"authenticated": true, "user": user_fields(&user), "audiences": audiences}),
        None => json!({"authenticated": false, "user": {}, "error": "[invalid bearer token, token lookup failed]"}),
    };
    answer(call, review, status)
}

/// `SelfSubjectAccessReview`: `kubectl auth can-i`.
pub(super) async fn self_access(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let review = read(core, call, resource).await?;
    let status = decide(core, &call.user, &review, resource).await?;
    answer(call, review, status)
}

/// `SubjectAccessReview` and `LocalSubjectAccessReview`.
pub(super) async fn subject_access(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let review = read(core, call, resource).await?;
    let spec = &review["spec"];
    let texts =
        |value: &Value| value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let extra = spec["extra"].as_object().into_iter().flatten();
    let user = UserInfo {
        username: object::text(spec, &["user"]).to_owned(),
        uid: object::text(spec, &["uid"]).to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect::<BTreeMap<_, _>>(),
    };
    if user.username.is_empty() && user.groups.is_empty() {
        let path = FieldPath::new("spec").child("user");
        let error = FieldError::invalid(&path, &json!(""), "at least one of user or group must be specified");
        return Err(invalid(resource, &[error]));
    }
    let namespace = &call.resource().namespace;
    if resource.kind.namespaced && object::text(spec, &["resourceAttributes", "namespace"]) != namespace {
        let path = FieldPath::new("spec").child("resourceAttributes").child("namespace");
        let given = json!(object::text(spec, &["resourceAttributes", "namespace"]));
        return Err(invalid(resource, &[FieldError::invalid(&path, &given, "must match metadata.namespace")]));
    }
    let status = decide(core, &user, &review, resource).await?;
    answer(call, review, status)
}

fn invalid(resource: &Resource, errors: &[FieldError]) -> ApiStatus {
    ApiStatus::invalid(&resource.kind.group, &resource.kind.kind, "", errors)
}

async fn decide(core: &Core, user: &UserInfo, review: &Value, resource: &Resource) -> Result<Value, ApiStatus> {
    let (about, path) = (review["spec"].get("resourceAttributes"), review["spec"].get("nonResourceAttributes"));
    if about.is_some() == path.is_some() {
        let why = match about {
            Some(_) => "cannot be specified in combination with resourceAttributes",
            None => "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        };
        let field =
            FieldPath::new("spec").child(if about.is_some() { "nonResourceAttributes" } else { "resourceAttributes" });
        let value = path.cloned().unwrap_or(Value::Null);
        return Err(invalid(resource, &[FieldError::invalid(&field, &value, why)]));
    }
    let selectors = match about {
        Some(about) => Selectors::read(about).map_err(|errors| invalid(resource, &errors))?,
        None => Selectors::default(),
    };
    let text = |value: Option<&Value>, name: &str| value.map_or("", |value| object::text(value, &[name])).to_owned();
    let names = ["group", "version", "resource", "subresource", "namespace", "name"].map(|name| text(about, name));
    let [group, version, name, subresource, namespace, object_name] = &names;
    let asked = about.map(|_| ResourceAttributes {
        group,
        version,
        resource: name,
        subresource,
        namespace,
        name: object_name,
        fields: selectors.fields.as_ref(),
    });
    let verb = text(about.or(path), "verb");
    let asked_path = text(path, "path");
    let attributes = Attributes { user, verb: &verb, resource: asked, path: &asked_path };
    let mut status = match core.access.decide(&attributes).await? {
        Decision::Allow(reason) if reason.is_empty() => json!({"allowed": true}),
        Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
        Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
        Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
        Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
    };
    if !selectors.ignored.is_empty() {
        status["evaluationError"] = json!(selectors.ignored.join("; "));
    }
    Ok(status)
}

/// `SelfSubjectRulesReview`: `kubectl auth can-i --list`.
pub(super) async fn self_rules(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let mut review = read(core, call, resource).await?;
    let namespace = object::text(&review, &["spec", "namespace"]).to_owned();
    if namespace.is_empty() {
        return Err(ApiStatus::bad_request("no namespace on request"));
    }
    let authorizer = core.access.authorizer(&call.user).await?;
    let (resources, paths) = authorizer.rules_for(&call.user, &namespace);
    let status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    resource.kind.prepare_create(&mut review, &WriteContext { now: call.now, uid: &new_uid() });
    object::metadata_mut(&mut review).clear();
    answer(call, review, status)
}
