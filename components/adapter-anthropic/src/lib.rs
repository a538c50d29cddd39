//! The adapter `anthropic` as a component: a shell without logic.

witgate_model::export_adapter!(witgate_adapters::Anthropic);
