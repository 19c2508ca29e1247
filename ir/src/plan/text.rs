//! The text form of plans.
