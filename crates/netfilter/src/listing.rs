//! How many elements each set and map of a table has, counted while nft's listing goes by: the listing of a table of ten
//! thousand Services has megabytes, which nobody is to hold. Pure.

use std::collections::BTreeMap;

/// Counts, line by line.
#[derive(Debug, Default)]
pub(crate) struct ElementCounter {
    container: String,
    is_in_elements: bool,
    is_quoted: bool,
    counts: BTreeMap<String, usize>,
}

impl ElementCounter {
    /// Takes the next line.
    pub(crate) fn line(&mut self, line: &str) {
        let words = line.trim();
        let mut rest = words;
        if !self.is_in_elements {
            let opened = words.strip_suffix('{').map(|head| head.split_whitespace().collect::<Vec<_>>());
            if let Some(["set" | "map", name]) = opened.as_deref() {
                (*name).clone_into(&mut self.container);
                self.counts.entry(self.container.clone()).or_default();
                return;
            }
            let Some(elements) = words.strip_prefix("elements = {") else { return };
            (rest, self.is_in_elements) = (elements, true);
            *self.count() += 1;
        }
        for letter in rest.chars() {
            match letter {
                '"' => self.is_quoted = !self.is_quoted,
                ',' if !self.is_quoted => *self.count() += 1,
                '}' if !self.is_quoted => {
                    self.is_in_elements = false;
                    return;
                }
                _ => {}
            }
        }
    }

    /// What was counted, by name.
    pub(crate) fn finish(self) -> BTreeMap<String, usize> {
        self.counts
    }

    fn count(&mut self) -> &mut usize {
        self.counts.entry(self.container.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_counted() {
        let listing = "table ip t {\n\tcomment \"set x {\"\n\tset empty {\n\t\ttype ipv4_addr\n\t}\n\tset one {\n\t\ttype ipv4_addr\n\
                       \t\telements = { 10.0.0.1 }\n\t}\n\tmap many {\n\t\ttype ipv4_addr . inet_proto : verdict\n\
                       \t\tcomment \"a, b\"\n\t\telements = { 10.0.0.1 . tcp comment \"a, } b\" : goto x,\n\
                       \t\t\t     10.0.0.2 . tcp : goto y, 10.0.0.3 . udp : drop }\n\t}\n\
                       \tchain c {\n\t\tip saddr { 10.0.0.1, 10.0.0.2 } drop\n\t}\n}\n";
        let mut counter = ElementCounter::default();
        listing.lines().for_each(|line| counter.line(line));
        let counts = [("empty", 0), ("many", 3), ("one", 1)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(counter.finish(), BTreeMap::from(counts));
    }
}
