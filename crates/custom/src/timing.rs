//! How long expressions take. There is no clock here: whoever has one does the work.

use std::fmt::Debug;

/// Does work on expressions, and may look at a clock before and after it.
pub trait Timing: Debug + Send + Sync {
    /// Does work that compiles a rule, once.
    fn compile(&self, work: &mut dyn FnMut());

    /// Does work that evaluates the rules of one position of an object, once.
    fn evaluate(&self, work: &mut dyn FnMut());
}

/// Nobody looks at a clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untimed;

impl Timing for Untimed {
    fn compile(&self, work: &mut dyn FnMut()) {
        work();
    }

    fn evaluate(&self, work: &mut dyn FnMut()) {
        work();
    }
}
