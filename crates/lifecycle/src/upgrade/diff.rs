//! The differences between the manifests that are there and those of this version, as `diff -u` writes them.
//!
//! Pure.

use similar::TextDiff;

/// The hunks of one file; nothing where the texts are the same.
pub(super) fn unified(path: &str, old: &str, new: &str, context: usize) -> String {
    TextDiff::from_lines(old, new).unified_diff().context_radius(context).header(path, "new manifest").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let old = "a\nb\nc\nd\ne\n";
        assert_eq!(unified("/x", old, old, 3), "");
        let expected = "--- /x\n+++ new manifest\n@@ -2,3 +2,3 @@\n b\n-c\n+x\n d\n";
        assert_eq!(unified("/x", old, "a\nb\nx\nd\ne\n", 1), expected);
    }
}
