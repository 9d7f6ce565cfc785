//! Tests of the protobuf form.
