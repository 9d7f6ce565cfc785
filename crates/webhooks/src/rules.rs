//! Which requests a webhook or a policy asks for: group, version, resource, subresource, operation, scope.

use serde_json::Value;

/// What a request is about, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'a str,
    /// API group; empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Whether the object lies in a namespace; a Namespace does not.
    pub namespaced: bool,
}

/// One rule, as `admissionregistration.k8s.io` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With subresource; the second part is empty where the rule is about the main resource.
    resources: Vec<(String, String)>,
    scope: String,
}

impl Rule {
    /// Reads a rule; one without a scope is about every scope.
    pub fn read(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |text: String| match text.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources").into_iter().map(split).collect(),
            scope: rule["scope"].as_str().filter(|scope| !scope.is_empty()).unwrap_or("*").to_owned(),
        }
    }

    /// Whether it asks for such a request.
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|item| is(item, wanted));
        let is_scope = match self.scope.as_str() {
            "*" => true,
            "Namespaced" => asked.namespaced,
            "Cluster" => !asked.namespaced,
            _ => false,
        };
        is_scope
            && any(&self.operations, asked.operation)
            && any(&self.groups, asked.group)
            && any(&self.versions, asked.version)
            && self.resources.iter().any(|(resource, sub)| is(resource, asked.resource) && is(sub, asked.subresource))
    }
}

fn is(pattern: &str, text: &str) -> bool {
    pattern == "*" || pattern == text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_select_requests() {
        let asked = Asked {
            operation: "CREATE",
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "",
            namespaced: true,
        };
        let rule = |operations: &str, group: &str, version: &str, resource: &str, scope: &str| {
            let rule = json!({"operations": [operations], "apiGroups": [group], "apiVersions": [version],
                "resources": [resource], "scope": scope});
            Rule::read(&rule)
        };
        for (rule, asked, expected) in [
            (rule("CREATE", "", "v1", "pods", "*"), asked, true),
            (rule("*", "*", "*", "*", "Namespaced"), asked, true),
            (rule("*", "*", "*", "*", "Cluster"), asked, false),
            (rule("UPDATE", "", "v1", "pods", "*"), asked, false),
            (rule("CREATE", "apps", "v1", "pods", "*"), asked, false),
            (rule("CREATE", "", "v2", "pods", "*"), asked, false),
            (rule("CREATE", "", "v1", "pods/status", "*"), asked, false),
            (rule("CREATE", "", "v1", "*", "*"), Asked { subresource: "status", ..asked }, false),
            (rule("CREATE", "", "v1", "*/*", "*"), Asked { subresource: "status", ..asked }, true),
            (rule("CREATE", "", "v1", "*/*", "*"), asked, true),
            (rule("CREATE", "", "v1", "pods/*", "*"), Asked { subresource: "exec", ..asked }, true),
            (rule("CREATE", "", "v1", "*/scale", "*"), Asked { subresource: "exec", ..asked }, false),
            (rule("CREATE", "", "v1", "*", "Cluster"), Asked { namespaced: false, ..asked }, true),
        ] {
            assert_eq!(rule.matches(&asked), expected, "{rule:?} {asked:?}");
        }
    }
}
