//! Words that every other crate of Kedge speaks: object metadata, selectors, quantities, API status, component status
//! and the clock.
//!
//! Pure: no runtime, no I/O, no clock of its own. Nothing here depends on another Kedge crate.

mod clock;
mod component;
mod field;
mod field_selector;
pub mod formats;
mod identity;
mod media;
mod names;
mod quantity;
mod selector;
mod status;
mod version;

pub use clock::{Clock, ManualClock, SystemClock, format_micro_time, format_time, parse_time};
pub use component::{ComponentReport, ComponentState, ComponentStatus, StatusBoard};
pub use field::{FieldError, FieldErrorKind, FieldPath};
pub use field_selector::FieldSelector;
pub use identity::{GroupResource, GroupVersionKind, GroupVersionResource, ObjectKey, UserInfo};
pub use media::{MediaRange, accept_ranges};
pub use names::{
    is_dns1035_label, is_dns1123_label, is_dns1123_subdomain, is_label_value, is_qualified_name, random_suffix,
};
pub use quantity::{ParseQuantityError, Quantity};
pub use selector::{LabelSelector, Operator, ParseSelectorError, Requirement};
pub use status::{ApiStatus, StatusCause, StatusDetails, StatusReason};
pub use version::{KUBERNETES_VERSION, build_version, full_version, image_tag};
