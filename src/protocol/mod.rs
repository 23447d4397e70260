//! Pure codecs over byte slices: they see bytes and give back meaning, and own nothing.

pub mod frame;
