//! What objects use of a ResourceQuota, and which objects a quota looks at: by the rules of upstream's evaluators.
//!
//! Pure. The API server holds creations to it, and the controller counts what there is: both by these functions, so that
//! they agree. *Not* which quotas there are, and not what may be written.

mod amounts;
mod claims;
mod pods;
mod scopes;
mod services;

pub use amounts::{Amounts, format};
pub use claims::{of_claim, of_resource_claim};
pub use pods::of_pod;
pub use scopes::{Item, attributes_classes, looks_at};
pub use services::of_service;
