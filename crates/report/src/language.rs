//! The words of a report, in each language.

use kedge_diagnosis::{Certainty, Place, Severity};

/// A language of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Korean.
    Korean,
}

impl Language {
    /// The language of a locale such as `ko_KR.UTF-8`; English where there is none of it.
    pub fn of_locale(locale: &str) -> Self {
        match locale.split(['_', '.', '-']).next() {
            Some("ko") => Self::Korean,
            _ => Self::English,
        }
    }

    /// As HTML names it.
    pub(crate) fn code(self) -> &'static str {
        self.words().code
    }

    pub(crate) fn words(self) -> &'static Words {
        match self {
            Self::English => &ENGLISH,
            Self::Korean => &KOREAN,
        }
    }
}

/// What a report says around what it quotes.
pub(crate) struct Words {
    code: &'static str,
    pub(crate) healthy: &'static str,
    one_cause: &'static str,
    causes: &'static str,
    on: &'static str,
    pub(crate) therefore: &'static str,
    more: &'static str,
    pub(crate) seen: &'static str,
    pub(crate) what_to_do: &'static str,
    pub(crate) not_seen: &'static str,
    pub(crate) ruled_out: &'static str,
    pub(crate) dangerous: &'static str,
    pub(crate) timeline: &'static str,
    warning: &'static str,
    certainties: [&'static str; 3],
}

const ENGLISH: Words = Words {
    code: "en",
    healthy: "Nothing is wrong in what was looked at.",
    one_cause: "1 cause:",
    causes: "{} causes, the most likely to matter first:",
    on: "on {}",
    therefore: "therefore",
    more: "and {} more",
    seen: "seen",
    what_to_do: "what to do",
    not_seen: "not seen",
    ruled_out: "ruled out",
    dangerous: "data may be lost: read it twice, and have a copy",
    timeline: "timeline",
    warning: "warning",
    certainties: ["possible", "likely", "proven"],
};

const KOREAN: Words = Words {
    code: "ko",
    healthy: "살펴본 범위에서는 이상이 없습니다.",
    one_cause: "원인 1개:",
    causes: "원인 {}개 (중요한 순서):",
    on: "{} 노드",
    therefore: "이 때문에 생긴 일",
    more: "그 밖에 {}건",
    seen: "근거",
    what_to_do: "조치 방법",
    not_seen: "확인하지 못한 것",
    ruled_out: "배제한 원인",
    dangerous: "데이터를 잃을 수 있습니다. 먼저 백업하고 다시 확인하세요",
    timeline: "시간 순서",
    warning: "경고",
    certainties: ["가능성 있음", "가능성 높음", "확인됨"],
};

impl Words {
    pub(crate) fn count(&self, causes: usize) -> String {
        match causes {
            0 => self.healthy.to_owned(),
            1 => self.one_cause.to_owned(),
            count => self.causes.replace("{}", &count.to_string()),
        }
    }

    pub(crate) fn more(&self, count: usize) -> String {
        self.more.replace("{}", &count.to_string())
    }

    /// Where, if it is a machine.
    pub(crate) fn place(&self, place: &Place) -> Option<String> {
        match place {
            Place::Node(node) => Some(self.on.replace("{}", node)),
            Place::Cluster => None,
        }
    }

    pub(crate) fn certainty(&self, certainty: Certainty) -> &'static str {
        self.certainties[match certainty {
            Certainty::Possible => 0,
            Certainty::Likely => 1,
            Certainty::Proven => 2,
        }]
    }

    /// `warning, likely`, or the certainty alone for a failure.
    pub(crate) fn weight(&self, severity: Severity, certainty: Certainty) -> String {
        match severity {
            Severity::Failure => self.certainty(certainty).to_owned(),
            Severity::Warning => format!("{}, {}", self.warning, self.certainty(certainty)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales_have_their_language() {
        for (locale, wanted) in [
            ("ko_KR.UTF-8", Language::Korean),
            ("ko", Language::Korean),
            ("en_US.UTF-8", Language::English),
            ("C", Language::English),
            ("", Language::English),
        ] {
            assert_eq!(Language::of_locale(locale), wanted, "{locale}");
        }
    }
}
