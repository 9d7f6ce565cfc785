//! The rules of a Corefile that ask for another name than the client did. Pure.
//!
//! Invariant: a rewritten name is a name; patterns are bounded in size, and matched in time linear in the name.

use hickory_proto::rr::Name;
use regex::RegexBuilder;

use crate::corefile::Directive;
use crate::corefile::plan::name;

const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// One rule.
#[derive(Debug, Clone)]
pub(crate) struct Rewrite {
    pattern: Pattern,
    to: String,
    /// Whether later rules are looked at too.
    goes_on: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(Name),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(regex::Regex),
}

impl Rewrite {
    /// Reads `rewrite [continue|stop] [name] [exact|prefix|suffix|substring|regex] FROM TO`; or says what can't be done.
    pub(crate) fn parse(directive: &Directive) -> Result<Self, String> {
        let named = directive.options.iter().find(|option| option.name() == "name");
        let mut words: Vec<&str> = directive.arguments().iter().map(String::as_str).collect();
        words.extend(named.into_iter().flat_map(|option| option.words.iter().map(String::as_str)));
        let goes_on = words.first() == Some(&"continue");
        if goes_on || words.first() == Some(&"stop") {
            words.remove(0);
        }
        match words.first().copied() {
            Some("name") => drop(words.remove(0)),
            Some(field @ ("type" | "class" | "edns0" | "ttl" | "rcode" | "cname")) => {
                return Err(format!("rewrite {field} (only names are rewritten)"));
            }
            _ => {}
        }
        // Answers always have the name that was asked for, so that what is said about them is not needed.
        if let Some(answer) = words.iter().position(|word| *word == "answer") {
            words.truncate(answer);
        }
        let (kind, from, to) = match words.as_slice() {
            [kind, from, to] => (*kind, *from, *to),
            [from, to] => ("exact", *from, *to),
            _ => return Err(format!("rewrite {}", directive.arguments().join(" "))),
        };
        let lower = || from.to_ascii_lowercase();
        let pattern = match kind {
            "exact" => Pattern::Exact(name(from).ok_or_else(|| format!("rewrite of {from}"))?),
            "prefix" => Pattern::Prefix(lower()),
            "suffix" => Pattern::Suffix(dotted(&lower())),
            "substring" => Pattern::Substring(lower()),
            "regex" => {
                let built = RegexBuilder::new(from).size_limit(PATTERN_BYTES_MAX).case_insensitive(true).build();
                Pattern::Regex(built.map_err(|_| format!("rewrite of {from}: it is no pattern, or too large a one"))?)
            }
            other => return Err(format!("rewrite name {other}")),
        };
        let to = if kind == "suffix" { dotted(to) } else { to.to_owned() };
        Ok(Self { pattern, to, goes_on })
    }

    /// The other name, if the rule is about this one.
    fn apply(&self, asked: &Name) -> Option<Name> {
        let text = asked.to_ascii().to_ascii_lowercase();
        let other = match &self.pattern {
            Pattern::Exact(from) => (from == asked).then(|| self.to.clone())?,
            Pattern::Prefix(from) => format!("{}{}", self.to, text.strip_prefix(from.as_str())?),
            Pattern::Suffix(from) => format!("{}{}", text.strip_suffix(from.as_str())?, self.to),
            Pattern::Substring(from) => text.contains(from.as_str()).then(|| text.replace(from.as_str(), &self.to))?,
            Pattern::Regex(pattern) => fill(&self.to, &pattern.captures(&text)?),
        };
        name(&other)
    }
}

fn dotted(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}

/// Puts groups where `{0}`, `{1}`, ... stand.
fn fill(template: &str, groups: &regex::Captures<'_>) -> String {
    let mut filled = template.to_owned();
    for (index, group) in groups.iter().enumerate() {
        filled = filled.replace(&format!("{{{index}}}"), group.map_or("", |group| group.as_str()));
    }
    filled
}

/// The name to ask for instead; the first rule that fits ends it, unless it says otherwise.
pub(crate) fn rewrite(rules: &[Rewrite], asked: &Name) -> Option<Name> {
    let mut now: Option<Name> = None;
    for rule in rules {
        if let Some(other) = rule.apply(now.as_ref().unwrap_or(asked)) {
            now = Some(other);
            if !rule.goes_on {
                break;
            }
        }
    }
    now.filter(|now| now != asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Rewrite, String> {
        let words = text.split(' ').map(str::to_owned).collect();
        Rewrite::parse(&Directive { words, options: Vec::new(), line: 1 })
    }

    #[test]
    fn names_become_others() {
        let check = |rules: &[&str], asked: &str, expected: &str| {
            let rules: Vec<Rewrite> = rules.iter().map(|text| rule(text).unwrap()).collect();
            let other = rewrite(&rules, &name(asked).unwrap());
            assert_eq!(other.map_or("none".to_owned(), |other| other.to_ascii()), expected, "{rules:?} {asked}");
        };
        let web = "web.ns.svc.cluster.local";
        check(&["rewrite name a.example web.ns.svc.cluster.local"], "A.example", &format!("{web}."));
        check(&["rewrite a.example web.ns.svc.cluster.local"], "a.example", &format!("{web}."));
        check(&["rewrite name exact a.example b.example"], "x.a.example", "none");
        check(&["rewrite name prefix a. b."], "a.example", "b.example.");
        check(&["rewrite stop name suffix .old.example .new.example answer auto"], "x.old.example", "x.new.example.");
        check(&["rewrite name substring old new"], "x.old.example", "x.new.example.");
        check(
            &[r"rewrite name regex (.*)\.of\.(.*)\.example {1}.{2}.svc.cluster.local"],
            "a.of.b.example",
            "a.b.svc.cluster.local.",
        );
        let two = ["rewrite continue name a.example b.example", "rewrite name b.example c.example"];
        check(&two, "a.example", "c.example.");
        check(&["rewrite name a.example b.example", two[1]], "a.example", "b.example.");
    }

    #[test]
    fn what_can_not_be_done_is_said() {
        let check = |text: &str, expected: &str| assert_eq!(rule(text).unwrap_err(), expected);
        check("rewrite type A AAAA", "rewrite type (only names are rewritten)");
        check("rewrite name soundex a b", "rewrite name soundex");
        check("rewrite name a", "rewrite name a");
        check("rewrite name regex ( b", "rewrite of (: it is no pattern, or too large a one");
        check(
            "rewrite name regex (\\w{500}){500} b",
            "rewrite of (\\w{500}){500}: it is no pattern, or too large a one",
        );
    }
}
