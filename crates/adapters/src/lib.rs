//! witgate-adapters
