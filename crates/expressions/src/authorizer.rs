//! The variable `authorizer`: what a user may do, asked step by step.
//!
//! Who decides is an [`Authorize`] that whoever evaluates brings along. Field and label selectors are passed on as they are
//! written; what cannot be read counts as none, as upstream has it.

use std::sync::Arc;

use cel::common::types;
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use kedge_meta::UserInfo;
use kedge_meta::{is_dns1123_label, is_dns1123_subdomain};

use crate::call::{self, Args, Outcome, failed, text_at, truth, value_at, value_type};

/// What is asked: a path where `path` is set, else a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of a SubjectAccessReview")]
pub struct Question {
    pub verb: String,
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the user may.
    pub is_allowed: bool,
    /// Why.
    pub reason: String,
}

/// Decides what a user may do.
pub trait Authorize: Send + Sync {
    /// Whether `user` may do what is asked.
    fn authorize(&self, user: &UserInfo, question: &Question) -> Verdict;
}

/// A user, with who decides about them.
#[derive(Clone)]
struct Asker {
    judge: Arc<dyn Authorize>,
    user: Arc<UserInfo>,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("user", &self.user.username).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct AuthorizerVal(Asker);

#[derive(Debug, Clone)]
struct PathVal((Asker, Question));

#[derive(Debug, Clone)]
struct GroupVal((Asker, Question));

#[derive(Debug, Clone)]
struct ResourceVal((Asker, Question));

#[derive(Debug, Clone)]
struct DecisionVal(Verdict);

value_type!(AUTHORIZER: AuthorizerVal, "kubernetes.authorization.Authorizer", |_, _| false);
value_type!(PATH_CHECK: PathVal, "kubernetes.authorization.PathCheck", |_, _| false);
value_type!(GROUP_CHECK: GroupVal, "kubernetes.authorization.GroupCheck", |_, _| false);
value_type!(RESOURCE_CHECK: ResourceVal, "kubernetes.authorization.ResourceCheck", |_, _| false);
value_type!(DECISION: DecisionVal, "kubernetes.authorization.Decision", |one, other| one.0 == other.0);

/// The value of the variable `authorizer`.
pub fn authorizer(judge: Arc<dyn Authorize>, user: UserInfo) -> Box<dyn Val> {
    Box::new(AuthorizerVal(Asker { judge, user: Arc::new(user) }))
}

/// The value of the variable `authorizer.requestResource`.
pub fn resource_check(judge: Arc<dyn Authorize>, user: UserInfo, question: Question) -> Box<dyn Val> {
    Box::new(ResourceVal((Asker { judge, user: Arc::new(user) }, question)))
}

fn path<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let asker = value_at::<AuthorizerVal>(&args, 0, "path")?.0.clone();
    let path = text_at(&args, 1, "path")?.trim().to_owned();
    if path.is_empty() {
        return Err(failed("path", "path must not be empty"));
    }
    Ok(CowVal::owned(PathVal((asker, Question { path, ..Question::default() }))))
}

fn group<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let asker = value_at::<AuthorizerVal>(&args, 0, "group")?.0.clone();
    let group = text_at(&args, 1, "group")?.to_owned();
    Ok(CowVal::owned(GroupVal((asker, Question { group, ..Question::default() }))))
}

fn service_account<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let asker = &value_at::<AuthorizerVal>(&args, 0, "serviceAccount")?.0;
    let (namespace, name) = (text_at(&args, 1, "serviceAccount")?, text_at(&args, 2, "serviceAccount")?);
    if !is_dns1123_subdomain(name) {
        return Err(failed("serviceAccount", "Invalid service account name"));
    }
    if !is_dns1123_label(namespace) {
        return Err(failed("serviceAccount", "Invalid service account namespace"));
    }
    let of_namespace = format!("system:serviceaccounts:{namespace}");
    let groups = ["system:serviceaccounts", &of_namespace];
    let user = UserInfo::authenticated(&format!("system:serviceaccount:{namespace}:{name}"), groups);
    Ok(CowVal::owned(AuthorizerVal(Asker { judge: Arc::clone(&asker.judge), user: Arc::new(user) })))
}

fn resource<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (asker, question) = value_at::<GroupVal>(&args, 0, "resource")?.0.clone();
    let resource = text_at(&args, 1, "resource")?.to_owned();
    if resource.trim().is_empty() {
        return Err(failed("resource", "resource must not be empty"));
    }
    Ok(CowVal::owned(ResourceVal((asker, Question { resource, ..question }))))
}

fn narrowed<'b, 'v>(
    args: &[CowVal<'b, 'v>],
    name: &str,
    set: fn(&mut Question, String),
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut check = value_at::<ResourceVal>(args, 0, name)?.clone();
    set(&mut check.0.1, text_at(args, 1, name)?.to_owned());
    Ok(CowVal::owned(check))
}

fn subresource<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    narrowed(&args, "subresource", |question, value| question.subresource = value)
}

fn namespace<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    narrowed(&args, "namespace", |question, value| question.namespace = value)
}

fn name<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    narrowed(&args, "name", |question, value| question.name = value)
}

fn field_selector<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    narrowed(&args, "fieldSelector", |question, value| question.field_selector = value)
}

fn label_selector<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    narrowed(&args, "labelSelector", |question, value| question.label_selector = value)
}

fn decided<'b, 'v>(asker: &Asker, question: &Question, verb: &str) -> Outcome<'b, 'v> {
    let question = Question { verb: verb.to_owned(), ..question.clone() };
    Ok(CowVal::owned(DecisionVal(asker.judge.authorize(&asker.user, &question))))
}

fn check_path<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (asker, question) = &value_at::<PathVal>(&args, 0, "check")?.0;
    decided(asker, question, text_at(&args, 1, "check")?)
}

fn check<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (asker, question) = &value_at::<ResourceVal>(&args, 0, "check")?.0;
    decided(asker, question, text_at(&args, 1, "check")?)
}

fn allowed<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    truth(value_at::<DecisionVal>(&args, 0, "allowed")?.0.is_allowed)
}

fn reason<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    call::text(value_at::<DecisionVal>(&args, 0, "reason")?.0.reason.clone())
}

// The authorizers that there are give an answer or none, and never an error.
fn errored<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    value_at::<DecisionVal>(&args, 0, "errored")?;
    truth(false)
}

fn error<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    value_at::<DecisionVal>(&args, 0, "error")?;
    call::text("")
}

pub(crate) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    use types::STRING_TYPE as TEXT;
    for kind in [&AUTHORIZER, &PATH_CHECK, &GROUP_CHECK, &RESOURCE_CHECK, &DECISION] {
        env.add_type(kind.to_owned())?;
    }
    let mut member = |name: &str, id: &str, target: &types::Type, args: usize, function| {
        env.add_member_overload(name, id, target.to_owned(), (0..args).map(|_| TEXT).collect(), function)
    };
    member("path", "authorizer_path", &AUTHORIZER, 1, path)?;
    member("group", "authorizer_group", &AUTHORIZER, 1, group)?;
    member("serviceAccount", "authorizer_serviceaccount", &AUTHORIZER, 2, service_account)?;
    member("resource", "groupcheck_resource", &GROUP_CHECK, 1, resource)?;
    member("subresource", "resourcecheck_subresource", &RESOURCE_CHECK, 1, subresource)?;
    member("namespace", "resourcecheck_namespace", &RESOURCE_CHECK, 1, namespace)?;
    member("name", "resourcecheck_name", &RESOURCE_CHECK, 1, name)?;
    member("fieldSelector", "resourcecheck_fieldselector", &RESOURCE_CHECK, 1, field_selector)?;
    member("labelSelector", "resourcecheck_labelselector", &RESOURCE_CHECK, 1, label_selector)?;
    member("check", "pathcheck_check", &PATH_CHECK, 1, check_path)?;
    member("check", "resourcecheck_check", &RESOURCE_CHECK, 1, check)?;
    member("allowed", "decision_allowed", &DECISION, 0, allowed)?;
    member("reason", "decision_reason", &DECISION, 0, reason)?;
    member("errored", "decision_errored", &DECISION, 0, errored)?;
    member("error", "decision_error", &DECISION, 0, error)
}

#[cfg(test)]
mod tests;
