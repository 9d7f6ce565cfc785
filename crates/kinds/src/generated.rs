//! Tables that `cargo xtask codegen` writes. Nothing here is edited by hand.

pub(crate) mod served;
