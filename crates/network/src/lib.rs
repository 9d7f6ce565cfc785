//! The pod network of a node
