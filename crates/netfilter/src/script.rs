//! Writes the commands of one nft transaction. Knows nft's grammar and nothing else.
//!
//! Invariant: whatever stands in a comment can't end the comment or the line.

use std::fmt::Write;

use crate::model::{Element, Family, Hook, SetSpec};

/// How many elements one command carries; long lines make nft's error messages unreadable.
const ELEMENTS_PER_COMMAND: usize = 200;

/// A transaction under construction for one table.
#[derive(Debug)]
pub(crate) struct Script {
    family: Family,
    table: String,
    text: String,
}

impl Script {
    pub(crate) fn new(family: Family, table: &str) -> Self {
        Self { family, table: table.to_owned(), text: String::new() }
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }

    pub(crate) fn add_table(&mut self, comment: &str) {
        let Self { family, table, text } = self;
        line(text, format_args!("add table {family} {table} {{{} }}", comment_part(Some(comment), " ;")));
    }

    pub(crate) fn delete_table(&mut self) {
        let Self { family, table, text } = self;
        line(text, format_args!("delete table {family} {table}"));
    }

    pub(crate) fn add_chain(&mut self, name: &str, hook: Option<&Hook>) {
        let body = hook.map(|hook| {
            let Hook { kind, hook, priority } = hook;
            format!(" {{ type {kind} hook {hook} priority {priority} ; policy accept ; }}")
        });
        self.command("add chain", name, &body.unwrap_or_default());
    }

    pub(crate) fn flush_chain(&mut self, name: &str) {
        self.command("flush chain", name, "");
    }

    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.command("delete chain", name, "");
    }

    pub(crate) fn add_rule(&mut self, chain: &str, rule: &str) {
        self.command("add rule", chain, &format!(" {rule}"));
    }

    pub(crate) fn add_container(&mut self, name: &str, spec: &SetSpec) {
        let SetSpec { key, value, flags, timeout_seconds, comment } = spec;
        let mut body = format!(" {{ type {key}");
        if let Some(value) = value {
            let _ = write!(body, " : {value}");
        }
        body.push_str(" ;");
        if let Some(flags) = flags {
            let _ = write!(body, " flags {flags} ;");
        }
        if let Some(seconds) = timeout_seconds {
            let _ = write!(body, " timeout {seconds}s ;");
        }
        body.push_str(&comment_part(comment.as_deref(), " ;"));
        body.push_str(" }");
        self.command(if value.is_some() { "add map" } else { "add set" }, name, &body);
    }

    pub(crate) fn flush_container(&mut self, name: &str, spec: &SetSpec) {
        self.command(if spec.value.is_some() { "flush map" } else { "flush set" }, name, "");
    }

    pub(crate) fn delete_map(&mut self, name: &str) {
        self.command("delete map", name, "");
    }

    pub(crate) fn delete_set(&mut self, name: &str) {
        self.command("delete set", name, "");
    }

    pub(crate) fn add_elements<'a>(&mut self, container: &str, elements: impl Iterator<Item = (&'a str, &'a Element)>) {
        let written: Vec<String> = elements
            .map(|(key, element)| {
                let comment = comment_part(element.comment.as_deref(), "");
                let value = element.value.as_deref().map(|value| format!(" : {value}")).unwrap_or_default();
                format!("{key}{comment}{value}")
            })
            .collect();
        self.element_commands("add element", container, &written);
    }

    pub(crate) fn delete_elements<'a>(&mut self, container: &str, keys: impl Iterator<Item = &'a str>) {
        let keys: Vec<String> = keys.map(str::to_owned).collect();
        self.element_commands("delete element", container, &keys);
    }

    fn element_commands(&mut self, verb: &str, container: &str, items: &[String]) {
        for chunk in items.chunks(ELEMENTS_PER_COMMAND) {
            self.command(verb, container, &format!(" {{ {} }}", chunk.join(", ")));
        }
    }

    fn command(&mut self, verb: &str, name: &str, rest: &str) {
        let Self { family, table, text } = self;
        line(text, format_args!("{verb} {family} {table} {name}{rest}"));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "{line}");
}

/// nft allows comments of up to 128 bytes and has no way to escape a quote inside them.
fn comment_part(comment: Option<&str>, end: &str) -> String {
    let Some(comment) = comment else { return String::new() };
    let clean: String = comment.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).take(60).collect();
    format!(" comment \"{clean}\"{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_nfts() {
        let mut script = Script::new(Family::Ip, "t");
        script.add_table("rules \"for\"\nme");
        script.add_chain("in", Some(&Hook { kind: "nat", hook: "prerouting", priority: "dstnat - 10" }));
        script.add_container("m", &SetSpec::verdict_map("ipv4_addr . inet_proto", "all of it"));
        let flags = Some("dynamic,timeout".to_owned());
        script.add_container("s", &SetSpec { flags, timeout_seconds: Some(9), ..SetSpec::set("ipv4_addr") });
        let element = Element { value: Some("goto x".into()), comment: Some("a/b".into()) };
        script.add_elements("m", [("1.2.3.4 . tcp", &element)].into_iter());
        script.delete_elements("s", ["1.1.1.1", "2.2.2.2"].into_iter());
        assert_eq!(
            script.finish(),
            "add table ip t { comment \"rules forme\" ; }\n\
             add chain ip t in { type nat hook prerouting priority dstnat - 10 ; policy accept ; }\n\
             add map ip t m { type ipv4_addr . inet_proto : verdict ; comment \"all of it\" ; }\n\
             add set ip t s { type ipv4_addr ; flags dynamic,timeout ; timeout 9s ; }\n\
             add element ip t m { 1.2.3.4 . tcp comment \"a/b\" : goto x }\n\
             delete element ip t s { 1.1.1.1, 2.2.2.2 }\n"
        );
    }

    #[test]
    fn many_elements_become_several_commands() {
        let mut script = Script::new(Family::Ip, "t");
        let keys: Vec<String> = (0..401).map(|n| n.to_string()).collect();
        script.delete_elements("s", keys.iter().map(String::as_str));
        assert_eq!(script.finish().lines().count(), 3);
    }
}
