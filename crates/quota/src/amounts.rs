//! Amounts by the names under which quotas limit them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::Quantity;

/// Amounts by resource name, such as `requests.cpu`.
pub type Amounts = BTreeMap<String, Quantity>;

/// An amount as upstream writes it: bytes in the largest binary unit that fits, everything else in decimal.
pub fn format(name: &str, amount: Quantity) -> String {
    let is_bytes = name.ends_with("memory") || name.ends_with("storage");
    let units = amount.units();
    if is_bytes && units > 0 && Quantity::from_units(units) == amount {
        for (suffix, power) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
            if units % (1 << power) == 0 {
                return format!("{}{suffix}", units >> power);
            }
        }
    }
    amount.to_string()
}

/// One of each.
pub(crate) fn one_of<const N: usize>(names: [&str; N]) -> Amounts {
    names.into_iter().map(|name| (name.to_owned(), Quantity::from_units(1))).collect()
}

pub(crate) fn add(amounts: &mut Amounts, name: &str, amount: Quantity) {
    let entry = amounts.entry(name.to_owned()).or_insert(Quantity::ZERO);
    *entry = *entry + amount;
}

pub(crate) fn add_all(into: &mut Amounts, others: &Amounts) {
    for (name, amount) in others {
        add(into, name, *amount);
    }
}

/// The larger of both, name by name.
pub(crate) fn raise(into: &mut Amounts, others: Amounts) {
    for (name, amount) in others {
        let entry = into.entry(name).or_insert(Quantity::ZERO);
        *entry = (*entry).max(amount);
    }
}

/// Amounts as they stand in an object; those that cannot be read are left out.
pub(crate) fn read(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
    let parsed = |(name, amount): (&String, &ApiQuantity)| Some((name.clone(), amount.0.parse().ok()?));
    amounts.into_iter().flatten().filter_map(parsed).collect()
}

#[cfg(test)]
pub(crate) fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={}", format(name, *amount))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_people_write_them() {
        let check = |name: &str, text: &str, expected: &str| assert_eq!(format(name, text.parse().unwrap()), expected);
        check("memory", "1073741824", "1Gi");
        check("limits.memory", "1536Mi", "1536Mi");
        check("requests.storage", "5", "5");
        check("cpu", "1500m", "1500m");
        check("pods", "1024", "1024");
    }
}
