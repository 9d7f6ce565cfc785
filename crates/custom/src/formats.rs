//! Formats of strings that schemas may name. Formats that are not known say nothing, as upstream has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `text` has the format; its name comes without dashes.
pub(crate) fn fits(format: &str, text: &str) -> bool {
    match format {
        "email" => email(text),
        "hostname" => hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid3" => uuid(text, '3'),
        "uuid4" => uuid(text, '4'),
        "uuid5" => uuid(text, '5'),
        "duration" => duration(text),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "hexcolor" => hex_color(text),
        "rgbcolor" => rgb_color(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => credit_card(text),
        "ssn" => ssn(text),
        "k8sshortname" => label(text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(|part| label_of(part, 253)),
        other => kedge_expressions::fits_format(other, text).unwrap_or(true),
    }
}

fn hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn email(text: &str) -> bool {
    let address = text.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>')).unwrap_or(text);
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let fine =
        |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '@'));
    fine(local) && fine(domain) && !local.starts_with('.') && !local.ends_with('.') && !local.contains("..")
}

fn hostname(text: &str) -> bool {
    let host = text.strip_suffix('.').unwrap_or(text);
    !host.is_empty() && host.len() <= 253 && host.split('.').all(|part| label(&part.to_lowercase()))
}

fn label(text: &str) -> bool {
    label_of(text, 63)
}

fn label_of(text: &str, limit: usize) -> bool {
    !text.is_empty()
        && text.len() <= limit
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    digits(length) && length.len() <= 3 && length.parse::<u8>().is_ok_and(|length| length <= most)
}

fn mac(text: &str) -> bool {
    let parts = |separator: char, width: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let bytes = parts.len() * width / 2;
        matches!(bytes, 6 | 8 | 20) && parts.iter().all(|part| part.len() == width && hex(part))
    };
    parts(':', 2) || parts('-', 2) || parts('.', 4)
}

fn uuid(text: &str, version: char) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let dashes_fit = text.char_indices().filter(|(_, c)| *c == '-').count() <= 4 && !text.contains("--");
    let digit = |index: usize| plain.chars().nth(index).map(|c| c.to_ascii_lowercase());
    let variant = version == '3' || digit(16).is_some_and(|c| matches!(c, '8' | '9' | 'a' | 'b'));
    plain.len() == 32 && hex(&plain) && dashes_fit && digit(12) == Some(version) && variant
}

/// As Go's `time.ParseDuration`, or a number and a word.
fn duration(text: &str) -> bool {
    const UNITS: [&str; 29] = [
        "ns",
        "us",
        "µs",
        "μs",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "w",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "milli",
        "millis",
        "second",
        "seconds",
        "minute",
        "minutes",
        "hour",
        "hours",
        "day",
        "days",
        "week",
    ];
    let mut rest = text.trim_start_matches(['+', '-']).trim();
    if rest == "0" {
        return true;
    }
    let mut found = false;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let after = rest[number..].trim_start();
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(after.len());
        if number == 0 || !UNITS.contains(&&after[..unit]) || rest[..number].parse::<f64>().is_err() {
            return false;
        }
        found = true;
        rest = after[unit..].trim_start();
    }
    found
}

fn hex_color(text: &str) -> bool {
    let text = text.strip_prefix('#').unwrap_or(text);
    matches!(text.len(), 3 | 6) && hex(text)
}

fn rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let part = |part: &str| digits(part.trim()) && part.trim().parse::<u8>().is_ok();
    inner.is_some_and(|inner| inner.split(',').count() == 3 && inner.split(',').all(part))
}

fn isbn10(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let value = |(index, letter): (usize, &char)| match letter {
        'X' if index == 9 => Some(10 * 10),
        letter => letter.to_digit(10).map(|digit| digit * (u32::try_from(index).unwrap_or_default() + 1)),
    };
    let sum: Option<u32> = plain.iter().enumerate().map(value).sum();
    plain.len() == 10 && sum.is_some_and(|sum| sum % 11 == 0)
}

fn isbn13(text: &str) -> bool {
    let plain: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let value = |(index, letter): (usize, &char)| letter.to_digit(10).map(|digit| digit * [1, 3][index % 2]);
    let sum: Option<u32> = plain.iter().enumerate().map(value).sum();
    plain.len() == 13 && sum.is_some_and(|sum| sum % 10 == 0)
}

/// Luhn's check over the digits.
fn credit_card(text: &str) -> bool {
    let numbers: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let doubled = |number: u32| if number * 2 > 9 { number * 2 - 9 } else { number * 2 };
    let value = |(index, number): (usize, &u32)| if index % 2 == 1 { doubled(*number) } else { *number };
    (13..=19).contains(&numbers.len()) && numbers.iter().rev().enumerate().map(value).sum::<u32>() % 10 == 0
}

fn ssn(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    plain.len() == 9 && digits(&plain) && text.len() <= 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_strings() {
        for (format, good, bad) in [
            ("uri", "http://a/b", "a b"),
            ("uri", "/a", "a"),
            ("email", "a@b.io", "a.b.io"),
            ("hostname", "a.B.io", "a_b"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("byte", "YQ==", "Y"),
            ("date", "2026-01-02", "2026-1-2"),
            ("datetime", "2026-01-02T03:04:05Z", "2026-01-02"),
            ("duration", "1h30m", "1x"),
            ("duration", "22 ns", ""),
            ("hexcolor", "#fff", "#ffff"),
            ("rgbcolor", "rgb(1,2,255)", "rgb(1,2,256)"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-22-3333", "111"),
            ("k8sshortname", "a-b", "A"),
            ("k8slongname", "a.b", "a..b"),
        ] {
            assert!(fits(format, good), "{format} {good}");
            assert!(!fits(format, bad), "{format} {bad}");
        }
        assert!(fits("unheard", "anything"));
    }
}
