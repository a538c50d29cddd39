//! witgate-gateway
