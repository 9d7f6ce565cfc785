//! The API server
