//! The adapter `openai` as a component: a shell without logic.

witgate_model::export_adapter!(witgate_adapters::OpenAi);
