//! `authorizer` and `authorizer.requestResource`: who may do what, as expressions of policies and webhooks ask.

use std::sync::Arc;

use cel::common::value::Val;
use kedge_auth::{Attributes as Asked, Authorizer, ResourceAttributes};
use kedge_expressions::{Authorize, Question, Verdict, authorizer, resource_check};
use kedge_meta::{ApiStatus, FieldSelector, UserInfo};

use super::Attributes;
use crate::registry::Resource;

struct Judge(Authorizer);

impl Authorize for Judge {
    fn authorize(&self, user: &UserInfo, question: &Question) -> Verdict {
        // Upstream asks without a selector that cannot be read.
        let fields = FieldSelector::parse(&question.field_selector).ok();
        let resource = ResourceAttributes {
            group: &question.group,
            version: "*",
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            fields: fields.as_ref(),
        };
        let resource = question.path.is_empty().then_some(resource);
        let asked = Asked { user, verb: &question.verb, resource, path: &question.path };
        let decision = self.0.authorize(&asked);
        let is_allowed = decision.is_allowed();
        Verdict { is_allowed, reason: decision.into_reason() }
    }
}

/// Both, for a request that was matched as one for `matched`.
pub(super) async fn authorizers(
    attributes: &Attributes<'_>,
    matched: &Resource,
) -> Result<(Box<dyn Val>, Box<dyn Val>), ApiStatus> {
    // As new as the store for anybody: an expression may ask about other users than that of the request.
    let anybody = UserInfo::authenticated("", ["system:nodes"]);
    let known = attributes.core.access.authorizer(&anybody).await?;
    let judge: Arc<dyn Authorize> = Arc::new(Judge(known.clone()));
    let own = Question {
        group: matched.kind.group.to_string(),
        resource: matched.kind.resource.to_string(),
        subresource: attributes.subresource.to_owned(),
        namespace: attributes.namespace.to_owned(),
        name: attributes.name.to_owned(),
        ..Question::default()
    };
    let user = || attributes.user.clone();
    Ok((authorizer(Arc::clone(&judge), user()), resource_check(judge, user(), own)))
}
