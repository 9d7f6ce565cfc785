//! Container images built from the running binary, and their import into a runtime
