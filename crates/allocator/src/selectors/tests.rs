//! What expressions say about one device.

use k8s_openapi::api::resource::v1::Device;
use serde_json::json;

use super::Selectors;

fn device() -> Device {
    serde_json::from_value(json!({
        "name": "d0",
        "allowMultipleAllocations": true,
        "attributes": {
            "model": {"string": "LATEST-GPU"}, "index": {"int": 3}, "fast": {"bool": true},
            "driverVersion": {"version": "1.10.2"}, "other.example.com/numa": {"int": 1},
        },
        "capacity": {"memory": {"value": "8Gi"}, "other.example.com/lanes": {"value": "500m"}},
    }))
    .unwrap()
}

fn verdict(expression: &str) -> String {
    let selectors = Selectors::default();
    match selectors.compile(expression) {
        Err(_) => "does not compile".to_owned(),
        Ok(program) => match selectors.evaluate(&program, "gpu.example.com", &device()) {
            Ok(matches) => matches.to_string(),
            Err(_) => "fails".to_owned(),
        },
    }
}

#[test]
fn expressions_select_devices() {
    let own = r#"device.attributes["gpu.example.com"]"#;
    let check = |expression: &str, expected: &str| {
        let expression = expression.replace("$own", own).replace("$capacity", r#"device.capacity["gpu.example.com"]"#);
        assert_eq!(verdict(&expression), expected, "{expression}");
    };
    check(r#"device.driver == "gpu.example.com""#, "true");
    check(r#"$own.model == "LATEST-GPU" && $own.index > 2 && $own.fast"#, "true");
    check(r#"$own.model.lowerAscii().startsWith("latest")"#, "true");
    check(r#"$own.model.matches("^[A-Z-]+$")"#, "true");
    check(r#"device.attributes["other.example.com"].numa == 1"#, "true");
    check(r#""index" in $own"#, "true");
    check(r#"has($own.none)"#, "false");
    check(r#"has(device.attributes["nobody.example.com"].none)"#, "false");
    check(r#"device.attributes["nobody.example.com"].none == 1"#, "fails");
    check(r#"$own.driverVersion.isGreaterThan(semver("1.9.0"))"#, "true");
    check(r#"$own.driverVersion == semver("1.10.2") && $own.driverVersion.minor() == 10"#, "true");
    check(r#"semver("v1.02", true).compareTo(semver("1.2.0")) == 0 && !isSemver("v1") && isSemver("1.0.0")"#, "true");
    check(r#"$capacity.memory.isGreaterThan(quantity("4Gi"))"#, "true");
    check(r#"$capacity.memory.compareTo(quantity("8Gi")) == 0 && $capacity.memory == quantity("8Gi")"#, "true");
    check(r#"$capacity.memory.sub(quantity("8Gi")).add(2).asInteger() == 2"#, "true");
    check(r#"device.capacity["other.example.com"].lanes.asApproximateFloat() == 0.5"#, "true");
    check(r#"isQuantity("1Gi") && !isQuantity("big")"#, "true");
    check(r#"quantity("big").isInteger()"#, "fails");
    check(r#"device.allowMultipleAllocations"#, "true");
    check(r#"cel.bind(gpu, $own, gpu.fast && gpu.index == 3)"#, "true");
    check(r#"["a", "LATEST-GPU"].exists(model, model == $own.model)"#, "true");
    check(r#"$own.?none.orValue("x") == "x""#, "true");
    check("1 + 1", "does not compile");
    check("device.driver ==", "does not compile");
    let ten = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
    let nested = |depth: usize| (0..depth).fold("true".to_owned(), |inner, at| format!("{ten}.all(x{at}, {inner})"));
    check(&nested(3), "true");
    check(&nested(7), "does not compile");
}
