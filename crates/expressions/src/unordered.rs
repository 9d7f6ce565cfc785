//! Lists of the types `set` and `map`: equal in any order, and one added to another keeps each element once.

use std::collections::HashMap;

use cel::common::traits::{Adder, Container, Indexer, Iterable, Sizer};
use cel::common::types::{self, CelBool, CelBytes, CelDouble, CelInt, CelList, CelString, Type};
use cel::common::value::{Builtin, BuiltinRef, CowVal, StaticVal, Val};

use crate::call::{Outcome, elements, failed};
use crate::duration::DurationVal;
use crate::timestamp::TimestampVal;

/// A list whose order means nothing.
#[derive(Debug, Clone)]
pub struct UnorderedList {
    list: CelList<'static>,
    /// The fields that tell elements apart; none where the whole element does.
    keys: Vec<String>,
}

impl UnorderedList {
    /// A list of the type `set`, or of the type `map` where `keys` names fields.
    pub fn new(items: Vec<Box<dyn Val>>, keys: &[String]) -> Self {
        Self { list: CelList::from(items), keys: keys.to_vec() }
    }

    /// What tells an element apart, as a text.
    fn identity(&self, item: &dyn Val) -> String {
        let mut text = String::new();
        if self.keys.is_empty() {
            write(item, &mut text);
        }
        for key in &self.keys {
            let key = CelString::from(key.clone());
            match item.as_indexer().map(|fields| fields.get(&key)) {
                Some(Ok(value)) => write(value.as_ref(), &mut text),
                _ => text.push('-'),
            }
            text.push(',');
        }
        text
    }
}

/// Writes a value so that equal ones have the same text; only the scalars of JSON and times occur where it matters.
fn write(value: &dyn Val, text: &mut String) {
    if let Some(own) = value.downcast_ref::<CelString<'_>>() {
        *text += &format!("{:?}", own.inner());
    } else if let Some(own) = value.downcast_ref::<CelInt>() {
        *text += &own.inner().to_string();
    } else if let Some(own) = value.downcast_ref::<CelDouble>() {
        *text += &own.inner().to_string();
    } else if let Some(own) = value.downcast_ref::<CelBool>() {
        *text += &own.inner().to_string();
    } else if let Some(own) = value.downcast_ref::<CelBytes<'_>>() {
        *text += &format!("b{:?}", own.inner());
    } else if let Some(own) = value.downcast_ref::<TimestampVal>() {
        *text += &own.identity();
    } else if let Some(own) = value.downcast_ref::<DurationVal>() {
        *text += &own.text();
    } else if let Some(items) = value.as_iterable() {
        let (fields, mut parts, mut items) = (value.as_indexer(), Vec::new(), items.iter());
        let is_map = value.get_type().name() == "map";
        while let Some(item) = items.next() {
            let mut part = String::new();
            write(item, &mut part);
            if let Some(Ok(value)) = fields.filter(|_| is_map).map(|fields| fields.get(item)) {
                part.push(':');
                write(value.as_ref(), &mut part);
            }
            parts.push(part);
        }
        if is_map {
            parts.sort();
        }
        *text += &format!("[{}]", parts.join(","));
    } else {
        text.push('?');
    }
}

impl Val for UnorderedList {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &types::LIST_TYPE
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        self.list.as_container()
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        self.list.as_indexer()
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        self.list.as_iterable()
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        self.list.as_sizer()
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let Some(other) = other.downcast_ref::<CelList<'_>>() else { return false };
        if other.inner().len() != self.list.inner().len() {
            return false;
        }
        let mut own = HashMap::with_capacity(self.list.inner().len());
        own.extend(self.list.inner().iter().map(|item| (self.identity(&**item), item)));
        other.inner().iter().all(|item| own.get(&self.identity(&**item)).is_some_and(|own| own.equals(&**item)))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }

    fn into_indexer<'v>(self: Box<Self>) -> Option<Box<dyn Indexer + 'v>>
    where
        Self: 'v,
    {
        Box::new(self.list).into_indexer()
    }

    // Whatever works on lists works on this one.
    fn as_builtin<'b, 'v>(&'b self) -> BuiltinRef<'b, 'v>
    where
        Self: 'v,
    {
        self.list.as_builtin()
    }

    fn into_builtin<'v>(self: Box<Self>) -> Option<Builtin<'v>>
    where
        Self: 'v,
    {
        Box::new(self.list).into_builtin()
    }
}

impl StaticVal for UnorderedList {}

impl Adder for UnorderedList {
    /// Elements keep their places; of the other list those replace their like, and the rest follows.
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Outcome<'b, 'v>
    where
        Self: 'v,
    {
        let rhs = rhs.clone_as_boxed();
        let added = elements(&[CowVal::Owned(rhs)], 0, "_+_").map_err(|_| failed("_+_", "no such overload"))?;
        let mut list: Vec<Box<dyn Val + 'v>> = self.list.inner().iter().map(|item| item.clone_as_boxed()).collect();
        let mut places = HashMap::with_capacity(list.len());
        places.extend(list.iter().enumerate().map(|(index, item)| (self.identity(&**item), index)));
        for item in added {
            let identity = self.identity(&*item);
            match places.get(&identity) {
                Some(index) => list[*index] = item,
                None => {
                    places.insert(identity, list.len());
                    list.push(item);
                }
            }
        }
        Ok(CowVal::owned(CelList::from(list)))
    }
}
