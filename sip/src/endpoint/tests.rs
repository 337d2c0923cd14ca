//! Whole endpoints against each other, and against scripted peers, in virtual time.

mod calls;
mod changes;
mod forks;
mod harness;
mod noise;
mod registration;
mod requests;
