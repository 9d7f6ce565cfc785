//! How mistakes are shown: with their place, the line they are in and a sign under it, as upstream shows them.

/// The longest line that is shown, in bytes.
const LONGEST_LINE: usize = 16 * 1024;

/// A mistake at a place, which counts bytes from the beginning of the source.
pub(crate) fn at_offset(source: &str, offset: usize, message: &str) -> String {
    let before = source.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    with_place(source, line, column, message)
}

/// A mistake in a line, at a column, both counted from zero.
pub(crate) fn with_place(source: &str, line: usize, column: usize, message: &str) -> String {
    let mut text = format!("ERROR: <input>:{}:{}: {message}", line + 1, column + 1);
    let snippet = source.split('\n').nth(line).filter(|snippet| snippet.len() <= LONGEST_LINE);
    if let Some(snippet) = snippet {
        let snippet = snippet.replace('\t', " ");
        let mark = |c: Option<char>, narrow, wide| if c.is_some_and(|c| c.len_utf8() > 1) { wide } else { narrow };
        let dots: String = snippet.chars().take(column).map(|c| mark(Some(c), '.', '\u{ff0e}')).collect();
        text += &format!("\n | {snippet}\n | {dots}{}", mark(snippet.chars().nth(column), '^', '\u{ff3e}'));
    }
    text
}
