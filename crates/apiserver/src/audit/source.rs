//! Where a request comes from, as far as one can know.

use std::net::IpAddr;

use http::HeaderMap;

/// What proxies say they forward for, and last the connection's other end: only that cannot be made up.
pub(super) fn addresses(headers: &HeaderMap, peer: IpAddr) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parse = |part: &str| part.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical());
    let mut found: Vec<IpAddr> = text("x-forwarded-for").split(',').filter_map(parse).collect();
    found.extend(parse(text("x-real-ip")).filter(|address| !found.contains(address)));
    let peer = peer.to_canonical();
    if found.last() != Some(&peer) {
        found.push(peer);
    }
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &'static str)], expected: &[&str]) {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        assert_eq!(addresses(&headers, "::ffff:192.0.2.9".parse().unwrap()), expected);
    }

    #[test]
    fn proxies_come_before_the_connection() {
        check(&[], &["192.0.2.9"]);
        check(&[("x-forwarded-for", "10.0.0.1, nonsense,2001:db8::1")], &["10.0.0.1", "2001:db8::1", "192.0.2.9"]);
        check(&[("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "10.0.0.1")], &["10.0.0.1", "192.0.2.9"]);
        check(&[("x-real-ip", "192.0.2.9")], &["192.0.2.9"]);
    }
}
