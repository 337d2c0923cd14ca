//! Whole endpoints against each other, and against scripted peers, in virtual time.

#![expect(clippy::similar_names, reason = "caller and callee are the RFC's nouns")]

mod calls;
mod changes;
mod forks;
mod harness;
mod noise;
mod registration;
mod requests;
