//! What findings say, and what mends them, in Korean.
//!
//! A finding's text is made of a sentence with names and quotations in it. The sentence is found again by its English words,
//! and its translation gets the same names and quotations. Invariant: what has no translation, and what is quoted, stays as
//! it is; a sentence and its translation have the same places.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::language::Language;
use crate::titles::title;

const TABLE: &str = include_str!("korean.tsv");
/// A place in a sentence.
const PLACE: &str = "{}";
/// Sentences within sentences.
const DEPTH: usize = 3;

/// A sentence with places.
struct Template {
    /// What stands around the places.
    words: Vec<&'static str>,
    korean: &'static str,
}

struct Table {
    whole: HashMap<&'static str, &'static str>,
    /// Those with the most words first: they fit least by chance.
    templates: Vec<Template>,
}

static KOREAN: LazyLock<Table> = LazyLock::new(|| {
    let (templates, whole): (Vec<_>, Vec<_>) = rows().partition(|(english, _)| english.contains(PLACE));
    let template = |(english, korean): (&'static str, _)| Template { words: english.split(PLACE).collect(), korean };
    let mut templates: Vec<Template> = templates.into_iter().map(template).collect();
    templates.sort_by_key(|template| std::cmp::Reverse(template.words.iter().map(|words| words.len()).sum::<usize>()));
    Table { whole: whole.into_iter().collect(), templates }
});

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'))
}

/// A sentence of a finding or of a repair.
pub(crate) fn text(english: &str, language: Language) -> Cow<'_, str> {
    match language {
        Language::English => Cow::Borrowed(english),
        Language::Korean => translated(english, DEPTH).map_or(Cow::Borrowed(english), Cow::Owned),
    }
}

/// An effect: the id and the title of a rule, and what it found.
pub(crate) fn effect(english: &str, language: Language) -> Cow<'_, str> {
    let split = english.split_once(' ').and_then(|(id, rest)| {
        let rule = kedge_diagnosis::rules().find(|rule| rule.id == id)?;
        Some((rule, rest.strip_prefix(rule.title)?.strip_prefix(": ")?))
    });
    match (language, split) {
        (Language::Korean, Some((rule, found))) => {
            Cow::Owned(format!("{} {}: {}", rule.id, title(rule.id, rule.title, language), text(found, language)))
        }
        _ => Cow::Borrowed(english),
    }
}

fn translated(english: &str, depth: usize) -> Option<String> {
    if depth == 0 {
        return None;
    }
    if let Some(korean) = KOREAN.whole.get(english) {
        return Some((*korean).to_owned());
    }
    KOREAN.templates.iter().find_map(|template| {
        let values = values(english, &template.words)?;
        let value = |value: &&str| translated(value, depth - 1).unwrap_or_else(|| (*value).to_owned());
        Some(filled(template.korean, &values.iter().map(value).collect::<Vec<_>>()))
    })
}

/// What stands in the places of a sentence, if it is that sentence.
fn values<'a>(text: &'a str, words: &[&str]) -> Option<Vec<&'a str>> {
    let (first, between) = words.split_first()?;
    let (last, between) = between.split_last()?;
    let mut rest = text.strip_prefix(first)?.strip_suffix(last)?;
    let mut values = Vec::with_capacity(words.len());
    for words in between {
        let (value, after) = rest.split_once(words)?;
        values.push(value);
        rest = after;
    }
    values.push(rest);
    Some(values)
}

/// A translation with what stands in its places: in their order, or by their number.
fn filled(korean: &str, values: &[String]) -> String {
    let mut filled = String::with_capacity(korean.len() + values.iter().map(String::len).sum::<usize>());
    let (mut rest, mut next) = (korean, 0);
    while let Some((before, after)) = rest.split_once('{') {
        let Some((number, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        let index = number.parse().unwrap_or(next);
        filled.push_str(values.get(index).map_or("", String::as_str));
        next += 1;
        rest = after;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn places(text: &str) -> BTreeSet<usize> {
        let numbers = text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(number, _)| number);
        numbers.enumerate().map(|(order, number)| number.parse().unwrap_or(order)).collect()
    }

    #[test]
    fn both_have_the_same_places() {
        for (english, korean) in rows() {
            assert_eq!(places(english), places(korean), "{english}");
            let is_korean = korean.chars().any(|letter| ('\u{ac00}'..='\u{d7a3}').contains(&letter));
            assert!(is_korean || !english.chars().any(char::is_alphabetic), "{english}: {korean}");
        }
    }

    #[test]
    fn sentences_keep_what_they_quote() {
        let check = |english: &str, korean: &str| assert_eq!(text(english, Language::Korean), korean);
        check(
            "net.ipv4.ip_forward is 0: packets of pods end on this machine",
            "net.ipv4.ip_forward이(가) 0입니다. 파드의 패킷이 이 머신에서 끝납니다",
        );
        check(
            "container c of Pod a/web ended 3 times, last with Error (code 1)",
            "Pod a/web의 컨테이너 c이(가) 3번 끝났습니다. 마지막은 Error (코드 1)",
        );
        check("Pod a/web: 0/1 nodes are available", "Pod a/web: 0/1 nodes are available");
        check(
            "from here the API server cannot be used: the certificate is not accepted",
            "여기서 API 서버를 쓸 수 없습니다: 인증서가 받아들여지지 않습니다",
        );
        assert_eq!(text("Pass packets on, now", Language::English), "Pass packets on, now");
    }

    #[test]
    fn effects_are_translated_with_their_title() {
        let english =
            "W1 a container ends again and again: container c of Pod a/web ended 3 times, last with Error (code 1)";
        let title = kedge_diagnosis::rules().find(|rule| rule.id == "W1").expect("it is a rule").title;
        let english = english.replace("a container ends again and again", title);
        let korean = effect(&english, Language::Korean).into_owned();
        assert!(korean.starts_with("W1 ") && korean.contains("컨테이너 c이(가) 3번"), "{korean}");
        assert_eq!(effect("no rule: x", Language::Korean), "no rule: x");
    }

    /// Literals of a source, each with what stands before it.
    fn literals(source: &str) -> Vec<(&str, String)> {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(start) = source[at..].find('"').map(|start| at + start) {
            let before = &source[..start];
            // A letter between quotes is no text.
            if before.ends_with('\'') || before.ends_with("'\\") {
                at = start + 1;
                continue;
            }
            let raw = before.ends_with("r#");
            let mut end = start + 1;
            loop {
                let rest = &source[end..];
                let Some(next) = rest.find('"') else { return found };
                let escapes = rest[..next].bytes().rev().take_while(|byte| *byte == b'\\').count();
                end += next + 1;
                if (raw && source[end..].starts_with('#')) || (!raw && escapes % 2 == 0) {
                    break;
                }
            }
            let mut text = source[start + 1..end - 1].replace("\\\"", "\"");
            while let Some(broken) = text.find("\\\n") {
                let next = text[broken + 2..].trim_start().to_owned();
                text.truncate(broken);
                text.push_str(&next);
            }
            found.push((before.trim_end(), text.replace("\\\\", "\\")));
            at = end;
        }
        found
    }

    /// The steps of repairs and the sentences of findings in a source of rules, with their places.
    fn sentences(source: &str) -> Vec<String> {
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        let mut found = Vec::new();
        for (before, text) in literals(&code) {
            let formatted = before.ends_with("format!(");
            let outside = before.strip_suffix("format!(").unwrap_or(before).trim_end_matches('&').trim_end();
            let is_step = outside.strip_suffix('(').is_some_and(|before| before.trim_end().ends_with(['[', ',']));
            let mut sentence = String::new();
            let mut rest = text.as_str();
            while let Some((words, after)) = rest.split_once('{') {
                sentence.push_str(words);
                sentence.push_str(PLACE);
                rest = after.split_once('}').map_or("", |(_, after)| after);
            }
            sentence.push_str(rest);
            let words = sentence.split(' ').filter(|word| {
                word.len() > 1 && word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '\'')
            });
            let says_something = words.count() >= 3;
            if text.contains(' ')
                && ((is_step && !text.starts_with('[')) || (formatted && says_something && !is_command(&text)))
            {
                found.push(sentence);
            }
        }
        found
    }

    fn is_command(text: &str) -> bool {
        let programs = [
            "kubectl",
            "kubeadm",
            "crictl",
            "kedge up",
            "kedge init",
            "mv",
            "ss",
            "etcdctl",
            "du",
            "df",
            "find",
            "sed",
            "echo",
            "sysctl",
            "modprobe",
            "ethtool",
            "ip",
            "mount",
        ];
        programs.iter().any(|program| text.strip_prefix(program).is_some_and(|rest| rest.starts_with(' ')))
    }

    #[test]
    fn nearly_every_sentence_of_the_rules_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../diagnosis/src/rules");
        let (mut open, mut seen, mut missing) = (vec![root], 0, BTreeSet::new());
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).expect("the rules are there").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if ["fixtures.rs", "calm.rs", "coverage.rs"].contains(&name.as_str()) {
                    continue;
                }
                for sentence in sentences(&std::fs::read_to_string(&path).expect("it is read")) {
                    seen += 1;
                    if !rows().any(|(english, _)| english == sentence) {
                        missing.insert(format!("{name}: {sentence}"));
                    }
                }
            }
        }
        // A new rule may wait for its translation, which is seldom its author's.
        assert!(missing.len() * 20 < seen && seen > 500, "{seen} sentences, without a translation: {missing:#?}");
    }
}
