//! What is asked of the authorizer, and what comes of the answers.

use std::sync::Arc;

use cel::{Context, Value};
use kedge_meta::UserInfo;

use super::{Authorize, Question, Verdict, authorizer, resource_check};
use crate::environment::{compile, environment, error_text};

/// Allows what it names, as `user verb what`.
struct Judge(&'static [&'static str]);

impl Authorize for Judge {
    fn authorize(&self, user: &UserInfo, question: &Question) -> Verdict {
        let Question { verb, path, group, resource, subresource, namespace, name, .. } = question;
        let mut what = match path.is_empty() {
            true => format!("{} {verb} {group}/{resource}/{subresource}/{namespace}/{name}", user.username),
            false => format!("{} {verb} {path}", user.username),
        };
        for (word, selector) in [("with", &question.field_selector), ("labelled", &question.label_selector)] {
            if !selector.is_empty() {
                what.push_str(&format!(" {word} {selector}"));
            }
        }
        Verdict { is_allowed: self.0.contains(&what.as_str()), reason: what }
    }
}

fn outcome(source: &str, allowed: &'static [&'static str]) -> String {
    let mut context = Context::with_env(environment());
    let user = UserInfo::authenticated("jane", []);
    context.add_variable_as_val("authorizer", authorizer(Arc::new(Judge(allowed)), user.clone()));
    let question = Question { resource: "pods".to_owned(), namespace: "own".to_owned(), ..Question::default() };
    context.add_variable_as_val("authorizer.requestResource", resource_check(Arc::new(Judge(allowed)), user, question));
    match compile(source).unwrap().execute(&context) {
        Ok(Value::Bool(yes)) => yes.to_string(),
        Ok(Value::String(text)) => text.to_string(),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("error: {}", error_text(&error)),
    }
}

#[test]
fn questions_are_put_together() {
    let check = |source: &str, expected: &str| assert_eq!(outcome(source, &[]), expected, "{source}");
    check("authorizer.path('/healthz').check('get').reason()", "jane get /healthz");
    check(
        "authorizer.group('apps').resource('deployments').subresource('scale').namespace('n').name('x')\
         .check('update').reason()",
        "jane update apps/deployments/scale/n/x",
    );
    check("authorizer.group('').resource('pods').namespace('').check('list').reason()", "jane list /pods///");
    check(
        "authorizer.serviceAccount('default', 'sa').group('').resource('pods').check('get').reason()",
        "system:serviceaccount:default:sa get /pods///",
    );
    check("authorizer.requestResource.check('custom').reason()", "jane custom /pods//own/");
    check("authorizer.requestResource.name('x').check('get').reason()", "jane get /pods//own/x");
    check("authorizer.group('').resource('pods').labelSelector('a=b').fieldSelector('c=d').check('get').error()", "");
    check(
        "authorizer.group('').resource('pods').labelSelector('a=b').fieldSelector('c=d').check('list').reason()",
        "jane list /pods/// with c=d labelled a=b",
    );
    check(
        "authorizer.requestResource.fieldSelector('a=b').fieldSelector('c=d').check('list').reason()",
        "jane list /pods//own/ with c=d",
    );
    check("authorizer.path('').check('get').allowed()", "error: path must not be empty");
    check("authorizer.path('  ').check('get').allowed()", "error: path must not be empty");
    check("authorizer.group('').resource(' ').check('get').allowed()", "error: resource must not be empty");
    check(
        "authorizer.serviceAccount('a', 'b@').path('/').check('get').allowed()",
        "error: Invalid service account name",
    );
    check(
        "authorizer.serviceAccount('a.b', 'b').path('/').check('get').allowed()",
        "error: Invalid service account namespace",
    );
}

#[test]
fn answers_are_passed_on() {
    let check = |source: &str, expected: &str| assert_eq!(outcome(source, &["jane get /x"]), expected, "{source}");
    check("authorizer.path('/x').check('get').allowed()", "true");
    check("authorizer.path('/y').check('get').allowed()", "false");
    check("authorizer.path('/x').check('get').errored()", "false");
    check("authorizer.path('/x').check('get').error() == ''", "true");
}
