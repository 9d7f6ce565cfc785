//! JSON patch, RFC 6902, with upstream's bounds and its leniency: negative list indexes count from the end, and a `test`
//! for null passes where the field is absent.
//!
//! Invariant: a patch of any kind costs no more than its size allows. Copies, depth and shifted list items are bounded.

use serde_json::Value;

use super::PatchError;
use crate::lexer::MAX_DEPTH;

const MAX_OPERATIONS: usize = 10_000;

/// Upstream's bound for what all copies of a patch add, in bytes.
const MAX_COPIED: usize = 3 << 20;

/// How many list items all insertions and removals of a patch may shift.
const MAX_SHIFTED: usize = 50_000_000;

/// How often the depth of a document is measured, after as many moves as could have made it too deep.
const MEASUREMENTS: usize = 16;

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
    let mut spent = Spent { depth: super::depth(&document), ..Spent::default() };
    for operation in operations {
        apply_operation(&mut document, operation, &mut spent)?;
    }
    Ok(document)
}

/// What a patch has cost so far.
#[derive(Default)]
struct Spent {
    copied: usize,
    shifted: usize,
    /// No less than the depth of the document.
    depth: usize,
    measurements: usize,
}

impl Spent {
    fn copy(&mut self, value: &Value) -> Result<(), PatchError> {
        self.copied += value.to_string().len();
        if self.copied <= MAX_COPIED {
            return Ok(());
        }
        let copied = self.copied;
        Err(unprocessable(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
        )))
    }

    fn shift(&mut self, items: usize) -> Result<(), PatchError> {
        self.shifted += items;
        if self.shifted <= MAX_SHIFTED {
            return Ok(());
        }
        Err(PatchError::TooLarge(format!("the patch moves more than {MAX_SHIFTED} list items")))
    }

    /// Notes that something that deep comes to a place; refuses it before the document is too deep for recursion.
    fn nest(&mut self, document: &Value, path: &str, depth: usize) -> Result<(), PatchError> {
        let below = path.bytes().filter(|byte| *byte == b'/').count();
        self.depth = self.depth.max(below + depth);
        if self.depth > MAX_DEPTH && self.measurements < MEASUREMENTS {
            self.measurements += 1;
            self.depth = super::depth(document).max(below + depth);
        }
        if self.depth <= MAX_DEPTH { Ok(()) } else { Err(unprocessable("exceeded max depth".to_owned())) }
    }
}

fn apply_operation(document: &mut Value, operation: &Value, spent: &mut Spent) -> Result<(), PatchError> {
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
        "add" => {
            let value = value();
            spent.nest(document, path, super::depth(&value))?;
            add(document, path, value, spent)
        }
        "remove" => remove(document, path, spent).map(drop),
        "replace" => {
            let value = value();
            spent.nest(document, path, super::depth(&value))?;
            replace(document, path, value)
        }
        "move" => {
            let from = from()?;
            let above = from.bytes().filter(|byte| *byte == b'/').count();
            let moved = remove(document, from, spent)?;
            if spent.depth.saturating_sub(above) > MAX_DEPTH / 2 {
                spent.nest(document, path, super::depth(&moved))?;
            } else {
                spent.nest(document, path, spent.depth.saturating_sub(above))?;
            }
            add(document, path, moved, spent)
        }
        "copy" => {
            let copied = get(document, from()?)?.cloned().ok_or_else(|| missing(path))?;
            spent.copy(&copied)?;
            spent.nest(document, path, super::depth(&copied))?;
            add(document, path, copied, spent)
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

fn add(document: &mut Value, path: &str, value: Value, spent: &mut Spent) -> Result<(), PatchError> {
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
                    spent.shift(list.len() - at)?;
                    list.insert(at, value);
                    Ok(())
                }
                None => Err(unprocessable(format!("Unable to access invalid index: {last}: invalid index referenced"))),
            }
        }
        _ => Err(missing(path)),
    }
}

fn remove(document: &mut Value, path: &str, spent: &mut Spent) -> Result<Value, PatchError> {
    let Some((container, last)) = container(document, path)? else { return Err(missing(path)) };
    let removed = match container {
        Value::Object(object) => object.remove(&last),
        Value::Array(list) => {
            let at = index(&last, list.len()).filter(|index| *index < list.len());
            spent.shift(at.map_or(0, |at| list.len() - at))?;
            at.map(|at| list.remove(at))
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
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::any_json;

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
    fn small_patches_stay_cheap() {
        let refused = |target: Value, operations: Vec<Value>| json_patch(target, &Value::from(operations)).unwrap_err();
        let twice = json!({"op": "copy", "from": "", "path": "/a"});
        let error = refused(json!({"b": "x".repeat(100)}), vec![twice; 400]);
        assert!(error.to_string().contains("exceeding the limit 3145728"), "{error}");
        let turns = [
            json!({"op": "add", "path": "/y", "value": {}}),
            json!({"op": "move", "from": "/x", "path": "/y/x"}),
            json!({"op": "move", "from": "/y", "path": "/x"}),
        ];
        let deeper = std::iter::repeat_n(turns, 3000).flatten().collect();
        assert_eq!(refused(json!({"x": {}}), deeper).to_string(), "exceeded max depth");
        let shallow = (0..3000).map(|turn| {
            let (from, to) = if turn % 2 == 0 { ("/a/b/c", "/x") } else { ("/x", "/a/b/c") };
            json!({"op": "move", "from": from, "path": to})
        });
        let target = json!({"a": {"b": {"c": 1}}});
        assert_eq!(json_patch(target.clone(), &shallow.collect()).unwrap(), target, "moving about is no depth");
        let first = json!({"op": "add", "path": "/0", "value": 1});
        let error = refused(Value::from(vec![0; 1_000_000]), vec![first; 100]);
        assert_eq!(error.into_status().code, 413);
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

    /// RFC 6902 as it reads, on documents as lists of paths with leaves: slow, and made another way.
    mod model {
        use serde_json::Value;

        fn find<'d>(document: &'d Value, path: &[String]) -> Option<&'d Value> {
            let Some((first, rest)) = path.split_first() else { return Some(document) };
            let next = match document {
                Value::Object(object) => object.iter().find(|(key, _)| *key == first).map(|(_, value)| value),
                Value::Array(list) => first.parse::<usize>().ok().and_then(|at| list.get(at)),
                _ => None,
            };
            find(next?, rest)
        }

        /// The document with what stands at a path made new; `None` where there is no such place.
        fn rebuild(document: &Value, path: &[String], change: &dyn Fn(&Value, &str) -> Option<Value>) -> Option<Value> {
            let (first, rest) = path.split_first()?;
            if rest.is_empty() {
                return change(document, first);
            }
            match document {
                Value::Object(object) => {
                    let below = rebuild(object.get(first)?, rest, change)?;
                    let rebuilt = object
                        .iter()
                        .map(|(key, value)| (key.clone(), if key == first { below.clone() } else { value.clone() }));
                    Some(Value::Object(rebuilt.collect()))
                }
                Value::Array(list) => {
                    let at: usize = first.parse().ok()?;
                    let below = rebuild(list.get(at)?, rest, change)?;
                    let rebuilt = list.iter().enumerate();
                    Some(
                        rebuilt.map(|(index, value)| if index == at { below.clone() } else { value.clone() }).collect(),
                    )
                }
                _ => None,
            }
        }

        fn add(document: &Value, path: &[String], new: &Value) -> Option<Value> {
            if path.is_empty() {
                return Some(new.clone());
            }
            rebuild(document, path, &|container, last| match container {
                Value::Object(object) => {
                    let kept = object.iter().filter(|(key, _)| *key != last);
                    let kept = kept.map(|(key, value)| (key.clone(), value.clone()));
                    Some(Value::Object(kept.chain([(last.to_owned(), new.clone())]).collect()))
                }
                Value::Array(list) => {
                    let at = if last == "-" { list.len() } else { last.parse().ok()? };
                    let (before, after) = list.split_at_checked(at)?;
                    Some(Value::from([before, std::slice::from_ref(new), after].concat()))
                }
                _ => None,
            })
        }

        fn remove(document: &Value, path: &[String]) -> Option<Value> {
            find(document, path)?;
            rebuild(document, path, &|container, last| match container {
                Value::Object(object) => {
                    let kept = object.iter().filter(|(key, _)| *key != last);
                    Some(Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect()))
                }
                Value::Array(list) => {
                    let at: usize = last.parse().ok()?;
                    let kept = list.iter().enumerate().filter(|(index, _)| *index != at);
                    Some(kept.map(|(_, value)| value.clone()).collect())
                }
                _ => None,
            })
        }

        pub(super) fn apply(document: &Value, operation: &Value) -> Option<Value> {
            let path = |name: &str| -> Vec<String> {
                let text = operation[name].as_str().unwrap_or_default();
                text.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
            };
            let (to, value) = (path("path"), &operation["value"]);
            match operation["op"].as_str()? {
                "add" => add(document, &to, value),
                "remove" => remove(document, &to),
                "replace" if to.is_empty() => Some(value.clone()),
                "replace" => {
                    find(document, &to)?;
                    rebuild(document, &to, &|container, last| match container {
                        Value::Array(_) => add(&remove(container, &[last.to_owned()])?, &[last.to_owned()], value),
                        container => add(container, &[last.to_owned()], value),
                    })
                }
                "move" => {
                    let from = path("from");
                    let moved = find(document, &from)?;
                    add(&remove(document, &from)?, &to, moved)
                }
                "copy" => add(document, &to, find(document, &path("from"))?),
                "test" => (find(document, &to)? == value).then(|| document.clone()),
                _ => None,
            }
        }
    }

    fn any_path() -> impl Strategy<Value = String> {
        let step = prop_oneof![6 => "[a-d]", 3 => "[0-3]", 1 => Just("-".to_owned()), 1 => Just("a~1b".to_owned())];
        prop::collection::vec(step, 1..4)
            .prop_map(|steps| steps.iter().map(|step| format!("/{step}")).collect::<String>())
    }

    fn any_operation() -> impl Strategy<Value = Value> {
        let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]);
        (op, any_path(), any_path(), any_json())
            .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
    }

    // Paths to the whole document are left out: one that is no object any more has no place in an API.
    proptest! {
        #[test]
        fn operations_do_what_the_rfc_says(target in any_json(), operations in prop::collection::vec(any_operation(), 1..6)) {
            let mut expected = Some(target.clone());
            for operation in &operations {
                expected = expected.and_then(|document| model::apply(&document, operation));
            }
            prop_assert_eq!(json_patch(target, &operations.into()).ok(), expected);
        }
    }
}
