//! The driver, step by step.

mod offline;
