//! Sets of completion indexes in the form of `status.completedIndexes`: `0,2-5,7`.
//!
//! Pure.

use std::collections::BTreeSet;

/// A set of indexes.
pub(crate) type Indexes = BTreeSet<i32>;

/// Reads the text form; what is no number, or out of `0..completions`, is left out.
pub(crate) fn parse(text: &str, completions: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
        indexes.extend(first.max(0)..=last.min(completions - 1));
    }
    indexes
}

/// Writes the text form: runs of three and more are ranges, as upstream writes them; of two as well.
pub(crate) fn format(indexes: &Indexes) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let text = |&(first, last): &(i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_and_written_back() {
        for text in ["", "0", "0,1", "0-2", "0-2,4", "1,3,5-9"] {
            assert_eq!(format(&parse(text, 100)), text);
        }
        assert_eq!(format(&parse("0-9", 5)), "0-4");
        assert_eq!(format(&parse("x,3", 5)), "3");
    }
}
