//! Facts about every field of every kind, and the engines over them: pure.

mod facts;
#[path = "generated/index.rs"]
mod generated;

pub use facts::{
    Default, Field, FieldType, GroupVersion, Kind, ListType, MapType, Merge, Type, Union, group_versions, type_by_gvk,
    type_by_name, types,
};
