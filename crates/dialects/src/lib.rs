//! witgate-dialects
