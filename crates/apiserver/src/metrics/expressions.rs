//! How long the rules of custom resources take to compile and to evaluate.

use std::sync::Arc;
use std::time::Instant;

use kedge_custom::Timing;
use kedge_metrics::{Histograms, Text};

/// Upper bounds, in seconds: those of Prometheus where nobody names any.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug)]
struct Durations {
    compilation: Histograms,
    evaluation: Histograms,
}

/// Both families.
#[derive(Debug)]
pub(crate) struct Expressions(Arc<Durations>);

impl Default for Expressions {
    fn default() -> Self {
        let family = |name, help| Histograms::new(name, &[], SECONDS, help);
        Self(Arc::new(Durations {
            compilation: family("apiserver_cel_compilation_duration_seconds", "CEL compilation time in seconds."),
            evaluation: family("apiserver_cel_evaluation_duration_seconds", "CEL evaluation time in seconds."),
        }))
    }
}

impl Expressions {
    /// What does the work for them.
    pub(crate) fn timing(&self) -> Arc<dyn Timing> {
        Arc::clone(&self.0) as Arc<dyn Timing>
    }

    pub(super) fn write(&self, text: &mut String) {
        let mut lines = Text::default();
        self.0.compilation.write(&mut lines);
        self.0.evaluation.write(&mut lines);
        text.push_str(&lines.finish());
    }
}

impl Timing for Durations {
    fn compile(&self, work: &mut dyn FnMut()) {
        timed(&self.compilation, work);
    }

    fn evaluate(&self, work: &mut dyn FnMut()) {
        timed(&self.evaluation, work);
    }
}

fn timed(durations: &Histograms, work: &mut dyn FnMut()) {
    let began = Instant::now();
    work();
    durations.observe(&[], began.elapsed());
}
