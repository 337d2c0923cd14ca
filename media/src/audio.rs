//! Where sound comes from and where it goes to.

#[cfg(feature = "sound")]
mod cpal;
pub mod device;
#[cfg(feature = "sound")]
mod rate;
pub mod ring;
pub mod source;
pub mod tone;
pub mod tune;
pub mod wav;
