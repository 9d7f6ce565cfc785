//! What an `Accept` header says: media ranges with parameters, by preference.

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRange<'a> {
    /// Type and subtype, in lower case.
    pub name: String,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    /// Reads one entry; what is no parameter is passed over.
    pub fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or("").to_ascii_lowercase();
        let parameter =
            |part: &'a str| part.split_once('=').map(|(key, value)| (key.trim(), value.trim().trim_matches('"')));
        Self { name, parameters: parts.filter_map(parameter).collect() }
    }

    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn quality(&self) -> f32 {
        self.get("q").and_then(|q| q.parse().ok()).unwrap_or(1.0)
    }
}

/// The entries of all `Accept` headers of a request, best first; of equal ones, the one that was named first.
pub fn accept_ranges<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<MediaRange<'a>> {
    let mut ranges: Vec<_> = headers.into_iter().flat_map(|value| value.split(',')).map(MediaRange::parse).collect();
    ranges.retain(|range| !range.name.is_empty());
    ranges.sort_by(|a, b| b.quality().total_cmp(&a.quality()));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_comes_first() {
        let ranges = accept_ranges(["text/plain;q=0.5, Application/JSON; as=\"Table\"", "", "a/b;q=0.9"]);
        let names: Vec<_> = ranges.iter().map(|range| (range.name.as_str(), range.get("as"))).collect();
        assert_eq!(names, [("application/json", Some("Table")), ("a/b", None), ("text/plain", None)]);
    }
}
