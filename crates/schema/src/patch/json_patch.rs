//! JSON patch, RFC 6902, with upstream's bounds and its leniency: negative list indexes count from the end, and a `test`
//! for null passes where the field is absent.

use serde_json::Value;

use super::PatchError;

const MAX_OPERATIONS: usize = 10_000;

/// Applies a list of operations to `target`.
pub fn json_patch(target: Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        let found = crate::leaf::go_kind(patch);
        return Err(malformed(format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Patch")));
    };
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let mut document = target;
    for operation in operations {
        apply_operation(&mut document, operation)?;
    }
    Ok(document)
}

fn apply_operation(document: &mut Value, operation: &Value) -> Result<(), PatchError> {
    if !operation.is_object() {
        let found = crate::leaf::go_kind(operation);
        return Err(malformed(format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Operation")));
    }
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let op = text("op").unwrap_or("unknown");
    let path = text("path").ok_or_else(|| unprocessable(format!("jsonpatch {op} operation: missing path")))?;
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    let from = || text("from").ok_or_else(|| unprocessable(format!("jsonpatch {op} operation: missing from")));
    match op {
        "add" => add(document, path, value()),
        "remove" => remove(document, path).map(drop),
        "replace" => replace(document, path, value()),
        "move" => {
            let moved = remove(document, from()?)?;
            add(document, path, moved)
        }
        "copy" => {
            let copied = get(document, from()?)?.cloned().ok_or_else(|| missing(path))?;
            add(document, path, copied)
        }
        "test" => match get(document, path)?.unwrap_or(&Value::Null) == &value() {
            true => Ok(()),
            false => Err(unprocessable(format!("testing value {path} failed: test failed"))),
        },
        other => Err(unprocessable(format!("Unexpected kind: {other}"))),
    }
}

fn malformed(text: String) -> PatchError {
    PatchError::Malformed(text)
}

fn unprocessable(text: String) -> PatchError {
    PatchError::Unprocessable(text)
}

fn missing(path: &str) -> PatchError {
    unprocessable(format!("doc is missing path: {path}: missing value"))
}

fn steps(path: &str) -> Result<Vec<String>, PatchError> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let rest = path.strip_prefix('/').ok_or_else(|| missing(path))?;
    Ok(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

/// The container of the path's last step, and that step. `None` for the whole document.
fn container<'d>(document: &'d mut Value, path: &str) -> Result<Option<(&'d mut Value, String)>, PatchError> {
    let mut steps = steps(path)?;
    let Some(last) = steps.pop() else { return Ok(None) };
    let mut at = document;
    for step in &steps {
        let next = match at {
            Value::Object(object) => object.get_mut(step),
            Value::Array(list) => index(step, list.len()).and_then(|index| list.get_mut(index)),
            _ => None,
        };
        at = next.ok_or_else(|| missing(path))?;
    }
    Ok(Some((at, last)))
}

fn index(step: &str, length: usize) -> Option<usize> {
    let number: i64 = step.parse().ok()?;
    if number >= 0 {
        return usize::try_from(number).ok();
    }
    length.checked_sub(usize::try_from(number.unsigned_abs()).ok()?)
}

fn get<'d>(document: &'d Value, path: &str) -> Result<Option<&'d Value>, PatchError> {
    let steps = steps(path)?;
    let mut at = document;
    for (depth, step) in steps.iter().enumerate() {
        let next = match at {
            Value::Object(object) => object.get(step),
            Value::Array(list) => index(step, list.len()).and_then(|index| list.get(index)),
            _ => None,
        };
        match next {
            Some(value) => at = value,
            None if depth + 1 == steps.len() && at.is_object() => return Ok(None),
            None => return Err(missing(path)),
        }
    }
    Ok(Some(at))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    let Some((container, last)) = container(document, path)? else {
        *document = value;
        return Ok(());
    };
    match container {
        Value::Object(object) => {
            object.insert(last, value);
            Ok(())
        }
        Value::Array(list) => {
            let at = if last == "-" { Some(list.len()) } else { index(&last, list.len() + 1) };
            match at.filter(|at| *at <= list.len()) {
                Some(at) => {
                    list.insert(at, value);
                    Ok(())
                }
                None => Err(unprocessable(format!("Unable to access invalid index: {last}: invalid index referenced"))),
            }
        }
        _ => Err(missing(path)),
    }
}

fn remove(document: &mut Value, path: &str) -> Result<Value, PatchError> {
    let Some((container, last)) = container(document, path)? else { return Err(missing(path)) };
    let removed = match container {
        Value::Object(object) => object.remove(&last),
        Value::Array(list) => {
            index(&last, list.len()).filter(|index| *index < list.len()).map(|index| list.remove(index))
        }
        _ => None,
    };
    removed.ok_or_else(|| unprocessable(format!("Unable to remove nonexistent key: {last}: missing value")))
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    let Some((container, last)) = container(document, path)? else {
        *document = value;
        return Ok(());
    };
    let slot = match container {
        Value::Object(object) => object.get_mut(&last),
        Value::Array(list) => index(&last, list.len()).and_then(|index| list.get_mut(index)),
        _ => None,
    };
    *slot.ok_or_else(|| missing(path))? = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_change_the_document() {
        let check = |patch: Value, expected: Value| {
            let target = json!({"a": {"b": [1, 2, 3]}, "x/y": 1, "m~n": 2});
            assert_eq!(json_patch(target, &patch).unwrap(), expected, "{patch}");
        };
        let with = |b: Value| json!({"a": {"b": b}, "x/y": 1, "m~n": 2});
        check(json!([{"op": "add", "path": "/a/b/1", "value": 9}]), with(json!([1, 9, 2, 3])));
        check(json!([{"op": "add", "path": "/a/b/-", "value": 9}]), with(json!([1, 2, 3, 9])));
        check(json!([{"op": "remove", "path": "/a/b/0"}]), with(json!([2, 3])));
        check(json!([{"op": "remove", "path": "/a/b/-1"}]), with(json!([1, 2])));
        check(json!([{"op": "replace", "path": "/a/b/2", "value": 0}]), with(json!([1, 2, 0])));
        check(json!([{"op": "move", "from": "/a/b/0", "path": "/a/b/2"}]), with(json!([2, 3, 1])));
        check(json!([{"op": "copy", "from": "/a/b/0", "path": "/a/b"}]), with(json!(1)));
        check(
            json!([{"op": "test", "path": "/x~1y", "value": 1}, {"op": "test", "path": "/m~0n", "value": 2}]),
            with(json!([1, 2, 3])),
        );
        check(json!([{"op": "test", "path": "/none", "value": null}]), with(json!([1, 2, 3])));
        check(json!([{"op": "replace", "path": "", "value": {}}]), json!({}));
    }

    #[test]
    fn operations_that_do_not_fit() {
        let check = |patch: Value, code: u16, expected: &str| {
            let error = json_patch(json!({"a": [1]}), &patch).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.into_status().code, code);
        };
        check(json!({}), 400, "json: cannot unmarshal object into Go value of type jsonpatch.Patch");
        check(json!([1]), 400, "json: cannot unmarshal number into Go value of type jsonpatch.Operation");
        check(json!([{"op": "test", "path": "/a", "value": 2}]), 422, "testing value /a failed: test failed");
        check(json!([{"op": "remove", "path": "/b"}]), 422, "Unable to remove nonexistent key: b: missing value");
        check(json!([{"op": "add", "path": "/b/c", "value": 1}]), 422, "doc is missing path: /b/c: missing value");
        check(json!([{"op": "replace", "path": "/b", "value": 1}]), 422, "doc is missing path: /b: missing value");
        check(json!([{"op": "spin", "path": "/b"}]), 422, "Unexpected kind: spin");
        check(
            json!([{"op": "add", "path": "/a/7", "value": 1}]),
            422,
            "Unable to access invalid index: 7: invalid index referenced",
        );
        check(
            json!(vec![json!({}); 10_001]),
            413,
            "The allowed maximum operations in a JSON patch is 10000, got 10001",
        );
    }
}
