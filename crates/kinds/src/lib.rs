//! Descriptors of the built-in kinds: names, defaults, validation, table columns: pure
