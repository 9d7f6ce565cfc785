//! What functions have in common: their arguments, their results, and types that CEL itself knows nothing of.

use cel::ExecutionError;
use cel::common::types::{CelBool, CelInt, CelList, CelString};
use cel::common::value::{CowVal, StaticVal, Val};

/// What a function is called with; a member function has its target first.
pub(crate) type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;

/// What a function comes to.
pub(crate) type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The error of a function.
pub(crate) fn failed(function: &str, message: impl ToString) -> ExecutionError {
    ExecutionError::FunctionError { function: function.to_owned(), message: message.to_string() }
}

/// A text among the arguments.
pub(crate) fn text_at<'a>(args: &'a [CowVal<'_, '_>], index: usize, function: &str) -> Result<&'a str, ExecutionError> {
    let found = args.get(index).and_then(|value| value.downcast_ref::<CelString<'_>>());
    found.map(CelString::inner).ok_or_else(|| failed(function, "no such overload"))
}

/// A value of one of our types among the arguments.
pub(crate) fn value_at<'a, T: StaticVal>(
    args: &'a [CowVal<'_, '_>],
    index: usize,
    function: &str,
) -> Result<&'a T, ExecutionError> {
    let found = args.get(index).and_then(|value| value.downcast_ref::<T>());
    found.ok_or_else(|| failed(function, "no such overload"))
}

/// The elements of a list among the arguments.
pub(crate) fn elements<'v>(
    args: &[CowVal<'_, 'v>],
    index: usize,
    function: &str,
) -> Result<Vec<Box<dyn Val + 'v>>, ExecutionError> {
    let list = args.get(index).and_then(|list| list.as_ref().as_iterable());
    let list = list.ok_or_else(|| failed(function, "no such overload"))?;
    let (mut found, mut items) = (Vec::new(), list.iter());
    while let Some(item) = items.next() {
        found.push(item.clone_as_boxed());
    }
    Ok(found)
}

pub(crate) fn truth<'b, 'v>(yes: bool) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(yes)))
}

pub(crate) fn number<'b, 'v>(number: i64) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelInt::from(number)))
}

pub(crate) fn text<'b, 'v>(text: impl Into<String>) -> Outcome<'b, 'v> {
    Ok(CowVal::owned(CelString::from(text.into())))
}

/// Texts as a list.
pub(crate) fn texts(texts: impl IntoIterator<Item = String>) -> CelList<'static> {
    let texts = texts.into_iter().map(|text| Box::new(CelString::from(text)) as Box<dyn Val>);
    CelList::from(texts.collect::<Vec<_>>())
}

/// Makes a type a value of CEL, whose type there stands in a static: `value_type!(URL: UrlVal, "kubernetes.URL", same)`;
/// what operators it has may follow.
macro_rules! value_type {
    ($kind:ident: $name:ident, $cel:literal, $same:expr $(, $operators:item)*) => {
        static $kind: cel::common::types::Type = cel::common::types::Type::new_unspecified_type($cel);

        impl cel::common::value::Val for $name {
            fn get_type(&self) -> &cel::common::types::Type {
                &$kind
            }

            fn cel_type() -> &'static cel::common::types::Type {
                &$kind
            }

            fn equals(&self, other: &dyn cel::common::value::Val) -> bool {
                let same: fn(&Self, &Self) -> bool = $same;
                other.downcast_ref::<Self>().is_some_and(|other| same(self, other))
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn cel::common::value::Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn std::any::Any> {
                Some(self)
            }

            $($operators)*
        }

        impl cel::common::value::StaticVal for $name {}
    };
}

/// The same for a type that can be added, subtracted and compared, and may be zero.
macro_rules! arithmetic_type {
    ($kind:ident: $name:ident, $cel:literal, $same:expr) => {
        crate::call::value_type!(
            $kind: $name, $cel, $same,
            fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn cel::common::traits::Adder + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            },
            fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn cel::common::traits::Subtractor + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            },
            fn as_comparer(&self) -> Option<&dyn cel::common::traits::Comparer> {
                Some(self)
            },
            fn as_zeroer(&self) -> Option<&dyn cel::common::traits::Zeroer> {
                Some(self)
            }
        );
    };
}

pub(crate) use {arithmetic_type, value_type};
