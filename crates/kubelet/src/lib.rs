//! The node agent
