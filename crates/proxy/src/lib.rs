//! The service proxy
