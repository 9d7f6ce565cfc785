//! Start order, wiring and shutdown of one process
