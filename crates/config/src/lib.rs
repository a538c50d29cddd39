//! witgate-config
