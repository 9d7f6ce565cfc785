//! The small web application of the demo
