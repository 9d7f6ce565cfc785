//! The embedded durable store
