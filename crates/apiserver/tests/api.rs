//! The API's behaviour, in process over a store in memory.
//!
//! One file for each group of verbs; every case says what is sent and what must come back.

#[path = "api/crud.rs"]
mod crud;
#[path = "api/harness.rs"]
mod harness;
#[path = "api/watches.rs"]
mod watches;
