//! witgate-framing
