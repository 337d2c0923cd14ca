//! Where sound comes from and where it goes to.

pub mod source;
