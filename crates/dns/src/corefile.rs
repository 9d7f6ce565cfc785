//! The text of a Corefile, as blocks of directives. Pure; what they mean is decided in `corefile/plan.rs`.
//!
//! Invariant: bounded in blocks, lines and depth; an error names the line.

pub(crate) mod plan;

/// No Corefile that people write comes near these.
const BYTES_MAX: usize = 256 * 1024;
const BLOCKS_MAX: usize = 64;
const LINES_MAX: usize = 20_000;

/// One server block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawBlock {
    /// What stands before the brace.
    pub(crate) keys: Vec<String>,
    pub(crate) directives: Vec<Directive>,
    pub(crate) line: usize,
}

/// One line of a server block, with the lines in its own braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) words: Vec<String>,
    pub(crate) options: Vec<Directive>,
    pub(crate) line: usize,
}

impl Directive {
    pub(crate) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(crate) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// A text is no Corefile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub(crate) struct CorefileError {
    pub(crate) line: usize,
    pub(crate) why: String,
}

fn error<T>(line: usize, why: impl Into<String>) -> Result<T, CorefileError> {
    Err(CorefileError { line, why: why.into() })
}

struct Line {
    number: usize,
    words: Vec<String>,
}

/// Reads a Corefile: its snippets are put where they are imported.
pub(crate) fn parse(text: &str) -> Result<Vec<RawBlock>, CorefileError> {
    if text.len() > BYTES_MAX {
        return error(1, format!("it is longer than {BYTES_MAX} bytes"));
    }
    let lines = lines(text)?;
    let mut reader = lines.into_iter().peekable();
    let (mut blocks, mut snippets) = (Vec::new(), Vec::new());
    while let Some(mut head) = reader.next() {
        let line = head.number;
        // Keys may stand on several lines, with commas at their ends.
        while head.words.last().is_some_and(|word| word.ends_with(',')) {
            let Some(next) = reader.next() else { return error(line, "the block has no body") };
            head.words.extend(next.words);
        }
        if head.words.pop().as_deref() != Some("{") {
            return error(line, "a block begins with zones and {");
        }
        let directives = body(&mut reader, line, 0)?;
        match head.words.as_slice() {
            [name] if name.starts_with('(') && name.ends_with(')') => {
                snippets.push((name.trim_matches(['(', ')']).to_owned(), directives));
            }
            [] => return error(line, "the block has no zone"),
            keys => {
                let keys = keys.iter().flat_map(|key| key.split(',')).filter(|key| !key.is_empty());
                blocks.push(RawBlock { keys: keys.map(str::to_owned).collect(), directives, line });
            }
        }
        if blocks.len() + snippets.len() > BLOCKS_MAX {
            return error(line, format!("there are more than {BLOCKS_MAX} blocks"));
        }
    }
    for block in &mut blocks {
        block.directives = import(std::mem::take(&mut block.directives), &snippets);
    }
    Ok(blocks)
}

/// Snippets stand in for their imports, once: an import inside of a snippet stays, and is not supported.
fn import(directives: Vec<Directive>, snippets: &[(String, Vec<Directive>)]) -> Vec<Directive> {
    let expand = |directive: Directive| match directive.words.as_slice() {
        [import, name] if import == "import" => {
            let snippet = snippets.iter().find(|(known, _)| known == name);
            snippet.map_or_else(|| vec![directive.clone()], |(_, directives)| directives.clone())
        }
        _ => vec![directive],
    };
    directives.into_iter().flat_map(expand).collect()
}

fn body(
    lines: &mut std::iter::Peekable<std::vec::IntoIter<Line>>,
    opened: usize,
    depth: usize,
) -> Result<Vec<Directive>, CorefileError> {
    let mut directives = Vec::new();
    while let Some(mut line) = lines.next() {
        if line.words == ["}"] {
            return Ok(directives);
        }
        let has_options = line.words.last().is_some_and(|word| word == "{");
        let mut options = Vec::new();
        if has_options {
            line.words.pop();
            if depth > 0 || line.words.is_empty() {
                return error(line.number, "there is a brace too many");
            }
            options = body(lines, line.number, depth + 1)?;
        }
        directives.push(Directive { words: line.words, options, line: line.number });
    }
    error(opened, "the block has no end")
}

/// The lines with words; a closing brace has a line of its own, wherever it stands.
fn lines(text: &str) -> Result<Vec<Line>, CorefileError> {
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        let mut words = words(text, number)?;
        if words.first().is_some_and(|word| word == "}") && words.len() > 1 {
            return error(number, "nothing may follow }");
        }
        let closes = words.len() > 1 && words.last().is_some_and(|word| word == "}");
        if closes {
            words.pop();
            // `name { option }` on one line.
            if let Some(brace) = words.iter().position(|word| word == "{") {
                let inner = words.split_off(brace + 1);
                lines.push(Line { number, words });
                words = inner;
            }
        }
        if !words.is_empty() {
            lines.push(Line { number, words });
        }
        if closes {
            lines.push(Line { number, words: vec!["}".to_owned()] });
        }
        if lines.len() > LINES_MAX {
            return error(number, format!("there are more than {LINES_MAX} lines"));
        }
    }
    Ok(lines)
}

fn words(text: &str, line: usize) -> Result<Vec<String>, CorefileError> {
    let (mut words, mut word, mut is_quoted, mut has_quotes) = (Vec::new(), String::new(), false, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if is_quoted && letters.peek() == Some(&'"') => word.extend(letters.next()),
            '"' => (is_quoted, has_quotes) = (!is_quoted, true),
            '#' if !is_quoted && word.is_empty() => break,
            _ if letter.is_whitespace() && !is_quoted => {
                if !word.is_empty() || has_quotes {
                    words.push(std::mem::take(&mut word));
                }
                has_quotes = false;
            }
            _ => word.push(letter),
        }
    }
    if is_quoted {
        return error(line, "a quotation has no end");
    }
    if !word.is_empty() || has_quotes {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(directives: &[Directive]) -> String {
        let show = |directive: &Directive| match directive.options.as_slice() {
            [] => directive.words.join(" "),
            options => format!("{} {{{}}}", directive.words.join(" "), shown(options)),
        };
        directives.iter().map(show).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn blocks_are_read() {
        let text = "# stub\n(common) {\n  cache 30\n  errors\n}\nexample.org:53, example.net {\n  import common\n\
                    \tforward . 10.0.0.1 { max_concurrent 7 }\n}\n.:53 {\n  hosts {\n    10.0.0.9 \"a b\" c # who\n    fallthrough\n  }\n\
                    import other/*.conf\n}\n";
        let blocks = parse(text).unwrap();
        assert_eq!(blocks[0].keys, ["example.org:53", "example.net"]);
        assert_eq!(shown(&blocks[0].directives), "cache 30; errors; forward . 10.0.0.1 {max_concurrent 7}");
        assert_eq!((blocks[1].keys[0].as_str(), blocks[1].line), (".:53", 10));
        assert_eq!(shown(&blocks[1].directives), "hosts {10.0.0.9 a b c; fallthrough}; import other/*.conf");
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        };
        check(".:53 {\n  errors\n", "line 1: the block has no end");
        check("forward . 1.1.1.1\n", "line 1: a block begins with zones and {");
        check("{\n}\n", "line 1: the block has no zone");
        check(". {\n a {\n b {\n }\n }\n}\n", "line 3: there is a brace too many");
        check(". {\n log \"x\n}\n", "line 2: a quotation has no end");
        check("a,\n", "line 1: the block has no body");
        check(&". {\n}\n".repeat(65), "line 129: there are more than 64 blocks");
    }
}
