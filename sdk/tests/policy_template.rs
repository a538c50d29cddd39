//! The template of a policy, and its own tests, as they are before a project has its name.

#[path = "../../templates/witgate-policy-rust/content/src/lib.rs"]
mod template;
